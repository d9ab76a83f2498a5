"""TIFF: rebuilt from the first page, its strips or tiles, and the tags that its pixels need.

libtiff reads whatever a directory says, in any order, and its decoders of rare kinds are where most
of its faults were found. It gets one directory, of tags and compressions that are chosen here, and
behind it the parts of the image, each once and inside the file. A BigTIFF becomes a plain one.
"""

from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from PIL import Image

from app.errors import (
    ImageError,
    ImageSuspiciousError,
    UnsupportedImageFormatError,
)
from app.intake.jpeg import outline_jpeg
from app.intake.outline import Outline, truncated, undecodable
from app.intake.tiff_directory import Directory, TiffReader, write_tiff
from app.intake.tiff_layout import WIDTH, Layout, read_layout
from app.intake.tiff_samples import JPEG, PALETTE, UNCOMPRESSED, YCBCR, Samples, read_samples

_SUBFILE_TYPE, _ORIENTATION = 254, 274
_STRIPS, _TILES = (273, 279), (324, 325)
_COLOUR_MAP, _JPEG_TABLES, _YCBCR_SUBSAMPLING, _XMP, _DNG_VERSION = 320, 347, 530, 700, 50706
_FAX_OPTIONS = (292, 293)
_THUMBNAIL, _MASK = 1, 4

_MAX_PAGES = 100
_MAX_TABLES_BYTES = 64 * 2**10


@dataclass(frozen=True)
class TiffOutline(Outline):
    """A rebuilt TIFF, and whether Pillow has its black for white."""

    inverted: bool = False

    def correct(self, image: Image.Image) -> Image.Image:
        """Return the image as others read it."""
        if self.inverted:
            return image.point(lambda value: value * -1 + 65535)
        return image.convert("LA") if image.mode == "La" else image


def outline_tiff(data: bytes, max_pixels: int) -> TiffOutline:
    """Rebuild a TIFF of its first page.

    Raises `ImageTooLargeError`, `ImageSuspiciousError`, `ImageTruncatedError`,
    `ImageUndecodableError`, and `UnsupportedImageFormatError` for kinds that are not decoded here.
    """
    reader = TiffReader(data)
    page = reader.directory(reader.first)
    if _DNG_VERSION in page.tags or page.number(_SUBFILE_TYPE, 0) & _THUMBNAIL:
        raise UnsupportedImageFormatError(
            "this TIFF is a camera raw or begins with a thumbnail: convert it"
        )
    layout = read_layout(page, max_pixels)
    samples = read_samples(page, reader.order)
    parts = _read_parts(data, page, layout, samples)
    tags = {**layout.tags(), **samples.tags(), **_tags_of_kind(page, samples)}
    xmp = page.tags.get(_XMP)
    return TiffOutline(
        write_tiff(reader.order, tags, _TILES if layout.is_tiled else _STRIPS, parts),
        orientation=_orientation(page),
        xmp=None if xmp is None else xmp.content,
        animated=_has_page(reader, page),
        inverted=samples.is_inverted,
    )


def _orientation(page: Directory) -> int | None:
    """Return what the page says of it; None if that is nothing."""
    if _ORIENTATION not in page.tags:
        return None
    value = page.number(_ORIENTATION, 1)
    return value if 1 <= value <= 8 else 1


def _has_page(reader: TiffReader, first: Directory) -> bool:
    """Tell whether there is another page; smaller copies of one, masks and broken ones are none."""
    at, seen = first.next, {0, reader.first}
    with suppress(ImageError):
        while at not in seen and len(seen) < _MAX_PAGES:
            seen.add(at)
            page = reader.directory(at)
            is_lesser = page.number(_SUBFILE_TYPE, 0) & (_THUMBNAIL | _MASK)
            if WIDTH in page.tags and not is_lesser:
                return True
            at = page.next
    return False


def _read_parts(
    data: bytes, page: Directory, layout: Layout, samples: Samples
) -> list[bytes | memoryview]:
    """Find the strips or tiles, plane by plane; an extra plane or part is none."""
    count = layout.count * samples.planes
    # The tags of strips are read for tiles as well, as libtiff does.
    tags = _TILES if layout.is_tiled and _TILES[0] in page.tags else _STRIPS
    starts, lengths = map(page.numbers, tags)
    if samples.compression == UNCOMPRESSED:
        row = (layout.part[0] * samples.bits_per_part + 7) // 8
        lengths = tuple(row * layout.rows(index) for index in range(count))
    elif not lengths and count == len(starts) == 1:
        lengths = (max(0, len(data) - starts[0]),)
    if len(starts) < count or len(lengths) < count:
        raise undecodable("TIFF")
    if sum(lengths[:count]) > len(data):
        raise truncated("TIFF") if samples.compression == UNCOMPRESSED else _overlapping()
    parts: list[bytes | memoryview] = []
    for start, length in islice(zip(starts, lengths, strict=False), count):
        if start + length > len(data):
            raise truncated("TIFF")
        if not length:
            raise undecodable("TIFF")
        parts.append(memoryview(data)[start : start + length])
    return _rebuilt_jpegs(parts, layout) if samples.compression == JPEG else parts


def _overlapping() -> ImageSuspiciousError:
    return ImageSuspiciousError("a TIFF whose parts are larger than itself")


def _rebuilt_jpegs(parts: list[bytes | memoryview], layout: Layout) -> list[bytes | memoryview]:
    """Rebuild each part, which is a JPEG whose tables may be elsewhere."""
    rebuilt: list[bytes | memoryview] = []
    for index, part in enumerate(parts):
        if part[:2] != b"\xff\xd8":
            raise undecodable("TIFF")
        outline = outline_jpeg(bytes(part))
        outline.check_size((layout.part[0], layout.rows(index)))
        rebuilt.append(outline.data)
    return rebuilt


def _tags_of_kind(page: Directory, samples: Samples) -> dict[int, tuple[int, ...] | bytes]:
    """Return what the palette or the compression needs beside the samples."""
    tags: dict[int, tuple[int, ...] | bytes] = {
        tag: (page.number(tag, 0),) for tag in _FAX_OPTIONS if page.number(tag, 0)
    }
    if samples.photometric == PALETTE:
        tags[_COLOUR_MAP] = _colour_map(page, 3 << samples.bits[0])
    if samples.compression == JPEG and _JPEG_TABLES in page.tags:
        tables = page.tags[_JPEG_TABLES].content
        if len(tables) > _MAX_TABLES_BYTES:
            raise ImageSuspiciousError("a TIFF of too many tables")
        tags[_JPEG_TABLES] = bytes(tables)
    if samples.photometric == YCBCR and len(page.numbers(_YCBCR_SUBSAMPLING)) == 2:
        tags[_YCBCR_SUBSAMPLING] = page.numbers(_YCBCR_SUBSAMPLING)
    return tags


def _colour_map(page: Directory, size: int) -> tuple[int, ...]:
    """Return 16 bits of each of a palette's colours; some programs wrote eight."""
    values = page.numbers(_COLOUR_MAP)
    if len(values) != size:
        raise undecodable("TIFF")
    return values if max(values) > 255 else tuple(257 * value for value in values)
