"""TIFF: right pixels of every kind that is taken, in words what is not, and bounded."""

import struct
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from app.errors import (
    ImageError,
    ImageSuspiciousError,
    ImageTooLargeError,
    ImageTruncatedError,
    UnsupportedImageFormatError,
)
from app.intake.decode import DecodedImage, DecodeLimits, decode_image
from app.intake.decode_process import DecodeProcess, PillowResize
from app.intake.tiff import outline_tiff
from app.intake.tiff_directory import TiffReader, write_tiff
from tests.app.images import animation, encode, oriented, scene
from tests.app.intake.test_differential import scan_file

LIMITS = DecodeLimits(2**24, 64_000_000, 65_535, frozenset({"tiff"}))
SIZE = WIDTH, HEIGHT = 53, 37
Pixels = npt.NDArray[np.integer[Any]]
RANDOM = np.random.default_rng(1)
BYTES: Pixels = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
WORDS: Pixels = RANDOM.integers(0, 65_536, (HEIGHT, WIDTH, 4), dtype=np.uint16)
PALETTE: Pixels = RANDOM.integers(0, 65_536, (3, 256), dtype=np.uint16)
STRIPS, COUNTS = 273, 279


def written(array: Pixels, **options: Any) -> bytes:
    """Write an image with a program that is not libtiff."""
    file = BytesIO()
    if options.get("planarconfig") == "separate":
        array = array.transpose(2, 0, 1)
    tifffile.imwrite(file, np.ascontiguousarray(array), metadata=None, **options)
    return file.getvalue()


def decoded(data: bytes) -> DecodedImage:
    return decode_image(data, LIMITS)


def pixels_of(data: bytes) -> Pixels:
    return np.asarray(decoded(data).pixels).astype(int)


def grey(samples: Pixels) -> Pixels:
    return np.repeat(samples.reshape(HEIGHT, WIDTH, 1), 3, 2).astype(int)


def rgb_of(samples: Pixels, mode: str) -> Pixels:
    image = Image.frombytes(mode, SIZE, np.ascontiguousarray(samples, np.uint8).tobytes())
    if mode.endswith("A"):
        white = Image.new("RGBA", SIZE, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image.convert("RGB")).astype(int)


HIGH = WORDS >> 8
BLACK, WHITE, RGB = {"photometric": "minisblack"}, {"photometric": "miniswhite"}, "rgb"
PLANES = {"planarconfig": "separate"}
KINDS: dict[str, tuple[Pixels, dict[str, Any], Pixels]] = {
    "grey": (BYTES[..., 0], BLACK, grey(BYTES[..., 0])),
    "grey, white is 0": (BYTES[..., 0], WHITE, grey(255 - BYTES[..., 0])),
    "grey of 16 bits": (WORDS[..., 0], BLACK, grey((WORDS[..., 0] / 257 + 0.5).astype(int))),
    "grey of 16 bits, white is 0": (
        WORDS[..., 0],
        WHITE,
        grey(((65_535 - WORDS[..., 0]) / 257 + 0.5).astype(int)),
    ),
    "grey and alpha": (
        BYTES[..., :2],
        BLACK | {"extrasamples": [2], "planarconfig": "contig"},
        rgb_of(BYTES[..., :2], "LA"),
    ),
    "palette": (
        BYTES[..., 0],
        {"photometric": "palette", "colormap": PALETTE},
        PALETTE.T[BYTES[..., 0]].astype(int) >> 8,
    ),
    "palette of 8 bits": (
        BYTES[..., 0],
        {"photometric": "palette", "colormap": PALETTE >> 8},
        PALETTE.T[BYTES[..., 0]].astype(int) >> 8,
    ),
}
for _name, _array, _high in (("", BYTES, BYTES), (" of 16 bits", WORDS, HIGH)):
    for _where, _planes in (("", {}), (" in planes", PLANES)):
        KINDS |= {
            f"RGB{_name}{_where}": (
                _array[..., :3],
                {"photometric": RGB, **_planes},
                _high[..., :3].astype(int),
            ),
            f"RGB and alpha{_name}{_where}": (
                _array,
                {"photometric": RGB, "extrasamples": [2], **_planes},
                rgb_of(_high, "RGBA"),
            ),
            f"RGB and something{_name}{_where}": (
                _array,
                {"photometric": RGB, "extrasamples": [0], **_planes},
                _high[..., :3].astype(int),
            ),
            f"CMYK{_name}{_where}": (
                _array,
                {"photometric": "separated", **_planes},
                rgb_of(_high, "CMYK"),
            ),
        }
LAYOUTS: list[dict[str, Any]] = [{}, {"rowsperstrip": 5}, {"tile": (16, 32)}]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_samples_are_what_they_mean(kind: str, byteorder: str) -> None:
    array, options, expected = KINDS[kind]
    for layout in LAYOUTS:
        for compression in (None, "zlib"):
            for bigtiff in (False, True):
                how = layout | {"compression": compression, "bigtiff": bigtiff}
                data = written(array, byteorder=byteorder, **options, **how)
                assert np.array_equal(pixels_of(data), expected), how


@pytest.mark.parametrize("planes", [{}, PLANES])
@pytest.mark.parametrize("array", [BYTES[..., :3], WORDS[..., :3]])
def test_differences_of_neighbours_are_added_up(array: Pixels, planes: dict[str, Any]) -> None:
    data = written(array, photometric=RGB, compression="zlib", predictor=2, **planes)
    assert np.array_equal(pixels_of(data), array >> 8 * (array.itemsize - 1))


@pytest.mark.parametrize("planes", [{}, PLANES])
@pytest.mark.parametrize("bits", [8, 16])
def test_colours_that_are_weighted_with_their_alpha_come_onto_white_once(
    bits: int, planes: dict[str, Any]
) -> None:
    alpha = BYTES[..., 3:].astype(int)
    weighted = np.concatenate([BYTES[..., :3] * alpha // 255, alpha], 2)
    stored = weighted.astype(np.uint8) if bits == 8 else (weighted * 257).astype(np.uint16)

    found = pixels_of(written(stored, photometric=RGB, extrasamples=[1], **planes))

    assert np.abs(found - (weighted[..., :3] + 255 - alpha)).max() <= 1


def test_weighted_grey_comes_onto_white_once() -> None:
    alpha = BYTES[..., 3].astype(int)
    weighted = np.stack([BYTES[..., 0] * alpha // 255, alpha], 2).astype(np.uint8)

    found = pixels_of(written(weighted, extrasamples=[1], planarconfig="contig", **BLACK))

    assert np.abs(found - grey(weighted[..., 0].astype(int) + 255 - alpha)).max() <= 1


def test_grey_of_16_bits_says_that_it_was_scaled() -> None:
    assert decoded(written(WORDS[..., 0], **BLACK)).warnings == ("grey_16bit_scaled",)


@pytest.mark.parametrize("compression", ["tiff_ccitt", "group3", "group4", "packbits", "tiff_lzw"])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_black_and_white_is_as_it_was(compression: str, white_is_zero: bool) -> None:
    image = scene(3).convert("1")
    tags = {262: 0 if white_is_zero else 1}
    data = encode(image, "TIFF", compression=compression, tiffinfo=tags)
    with Image.open(BytesIO(data)) as opened:
        assert opened.tag_v2[262] == tags[262]  # type: ignore[attr-defined]
    assert np.array_equal(pixels_of(data), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["L", "RGB", "YCbCr", "CMYK"])
def test_jpegs_in_it_are_decoded_as_pillow_does(mode: str) -> None:
    data = encode(scene(2, (200, 150)).convert(mode), "TIFF", compression="jpeg")
    with Image.open(BytesIO(data)) as opened:
        assert np.array_equal(pixels_of(data), np.asarray(opened.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_upright_as_its_tag_says(orientation: int) -> None:
    upright = scene(1)
    stored, exif = oriented(upright, orientation)
    data = encode(stored, "TIFF", exif=exif, compression="tiff_lzw")

    image = decoded(data)

    assert np.array_equal(np.asarray(image.pixels), np.asarray(upright))
    assert image.size == upright.size
    assert image.warnings == (("exif_rotated",) if orientation > 1 else ())


@pytest.mark.parametrize(
    ("tag", "expected"), [(None, (60, 40)[::-1]), (1, (60, 40)), (9, (60, 40))]
)
def test_xmp_counts_where_the_tag_says_nothing(tag: int | None, expected: tuple[int, int]) -> None:
    tags: dict[int, Any] = {700: b'<x tiff:Orientation="6"/>'} | ({} if tag is None else {274: tag})
    assert decoded(encode(scene(1), "TIFF", tiffinfo=tags)).size == expected


def test_the_first_page_is_taken() -> None:
    data = animation([(255, 0, 0), (0, 0, 255)], "TIFF")
    image = decoded(data)
    assert image.pixels.getcolors() == [(48, (255, 0, 0))]
    assert image.warnings == ("animated_first_frame",)


@pytest.mark.parametrize(("kind", "noted"), [(0, 1), (1, 0), (2, 1), (4, 0)])
def test_smaller_copies_and_masks_are_no_pages(kind: int, noted: int) -> None:
    file = BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(BYTES[..., :3], photometric=RGB, metadata=None)
        mask = BYTES[::2, ::2, 0] > 99
        writer.write(mask, photometric="miniswhite", subfiletype=kind, metadata=None)
    assert len(decoded(file.getvalue()).warnings) == noted


def test_pages_in_a_circle_are_one_page() -> None:
    data = bytearray(encode(scene(0), "TIFF"))
    start = int.from_bytes(data[4:8], "little")
    end = start + 2 + 12 * int.from_bytes(data[start : start + 2], "little")
    data[end : end + 4] = data[4:8]
    assert decoded(bytes(data)).warnings == ()


# What is refused, and how it is said.


def retagged(tag: int, value: int) -> bytes:
    """Change a number in the first directory of a TIFF of three bytes a pixel."""
    data = bytearray(encode(scene(0), "TIFF"))
    start = int.from_bytes(data[4:8], "little")
    for at in range(start + 2, start + 2 + 12 * data[start], 12):
        if int.from_bytes(data[at : at + 2], "little") == tag:
            data[at + 2 : at + 12] = struct.pack("<HII", 4, 1, value)
            return bytes(data)
    raise LookupError(tag)


def first_page(**options: Any) -> Callable[[], bytes]:
    return lambda: written(BYTES[..., :3], photometric=RGB, **options)


UNREAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "floats": (lambda: written(BYTES[..., 0].astype(np.float32), **BLACK), "floating-point"),
    "signed": (lambda: written(BYTES[..., 0].astype(np.int8), **BLACK), "signed"),
    "signed words": (lambda: written(WORDS[..., 0].astype(np.int16), **BLACK), "signed"),
    "long": (lambda: written(WORDS[..., 0].astype(np.uint32), **BLACK), "grey samples of 32 bits"),
    "spectral": (
        lambda: written(np.repeat(BYTES, 3, 2), planarconfig="contig", **BLACK),
        "12 samples a pixel",
    ),
    "Lab": (lambda: retagged(262, 8), "Lab samples of 8, 8, 8 bits"),
    "YCbCr without JPEG": (lambda: retagged(262, 6), "YCbCr samples"),
    "raw": (lambda: retagged(262, 32803), "camera raw samples"),
    "old JPEG": (lambda: retagged(259, 6), "compressed by JPEG of the old kind: save it with LZW"),
    "LZMA": (lambda: encode(scene(0), "TIFF", compression="lzma"), "compressed by LZMA"),
    "WebP": (lambda: retagged(259, 50001), "compressed by WebP"),
    "unheard of": (lambda: retagged(259, 12345), "compressed by code 12345"),
    "fax in colour": (lambda: retagged(259, 4), "facsimile"),
    "grey and alpha in planes": (
        lambda: written(BYTES[..., :2], extrasamples=[2], **BLACK, **PLANES),
        "8, 8 bits in planes",
    ),
    "inks": (
        lambda: written(BYTES, photometric="separated", extratags=[(332, 3, 1, 2, True)]),
        "other inks",
    ),
    "DNG": (first_page(extratags=[(50706, 1, 4, b"\1\4\0\0", True)]), "camera raw"),
    "a thumbnail first": (first_page(subfiletype=1), "begins with a thumbnail"),
}


@pytest.mark.parametrize("kind", UNREAD)
def test_what_is_not_read_is_refused_in_words(kind: str) -> None:
    make, said = UNREAD[kind]
    with pytest.raises(UnsupportedImageFormatError, match=said) as refused:
        decoded(make())
    assert len(refused.value.message) < 100


# Bounds.


@pytest.mark.parametrize("size", [(8000, 8001), (2**31, 1), (2**32 - 1, 2**32 - 1)])
def test_a_claim_over_the_limit_is_refused_unread(size: tuple[int, int]) -> None:
    data = write_tiff("<", {256: size[:1], 257: size[1:]}, (STRIPS, COUNTS), [b"x"])
    with pytest.raises(ImageTooLargeError):
        outline_tiff(data, LIMITS.max_pixels)


def tiff_of(parts: list[bytes], **tags: tuple[int, ...]) -> bytes:
    """Write a grey TIFF of 8 x 8 pixels, whose tags are like `t257`."""
    told: dict[int, tuple[int, ...]] = {
        256: (8,),
        257: (8,),
        258: (8,),
        259: (1,),
        262: (1,),
        278: (8,),
    }
    told |= {int(name[1:]): value for name, value in tags.items()}
    return write_tiff("<", told, (STRIPS, COUNTS), parts)


@pytest.mark.parametrize("tile", [(2**16, 2**16), (2**31, 16), (4096, 2048)])
def test_tiles_far_larger_than_their_image_are_refused(tile: tuple[int, int]) -> None:
    data = tiff_of([b"x"], t259=(5,), t322=tile[:1], t323=tile[1:])
    with pytest.raises(ImageSuspiciousError, match="tiles"):
        outline_tiff(data, LIMITS.max_pixels)


def test_a_strip_of_more_rows_than_there_are_is_the_image() -> None:
    assert decoded(tiff_of([bytes(64)], t278=(2**32 - 1,))).size == (8, 8)


def test_parts_that_are_used_again_and_again_are_no_image() -> None:
    data = bytearray(tiff_of([bytes(100)] * 8, t259=(32773,), t278=(1,)))
    starts = data.index(struct.pack("<HHI", STRIPS, 4, 8))
    at = int.from_bytes(data[starts + 8 : starts + 12], "little")
    counts = at + 32
    data[at : at + 32] = data[at : at + 4] * 8
    data[counts : counts + 32] = struct.pack("<I", 800) * 8
    with pytest.raises(ImageSuspiciousError, match="parts are larger"):
        outline_tiff(bytes(data), LIMITS.max_pixels)


@pytest.mark.parametrize("start", [64, 10**6, 2**32 - 1])
def test_a_part_outside_of_the_file_is_missing(start: int) -> None:
    data = bytearray(tiff_of([bytes(64)]))
    entry = data.index(struct.pack("<HH", STRIPS, 3 if start < 2**16 else 4)[:2])
    data[entry + 8 : entry + 12] = struct.pack("<I", len(data) - 32 if start == 64 else start)
    with pytest.raises(ImageTruncatedError):
        outline_tiff(bytes(data), LIMITS.max_pixels)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"compression": "jpeg"}])
def test_a_file_that_ends_early_is_refused(share: float, options: dict[str, str]) -> None:
    data = encode(scene(1), "TIFF", **options)
    with pytest.raises(ImageError):
        decoded(data[: max(9, int(len(data) * share))])


def test_directories_of_very_many_tags_or_numbers_are_refused() -> None:
    many = b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**62) + bytes(100)
    with pytest.raises(ImageSuspiciousError, match="tags"):
        outline_tiff(many, LIMITS.max_pixels)
    with pytest.raises(ImageSuspiciousError, match="parts"):
        outline_tiff(tiff_of([b"x"] * 400_001, t278=(1,)), LIMITS.max_pixels)


@pytest.mark.parametrize("at", [2**32, 2**63, 2**64 - 1])
def test_a_directory_far_behind_the_end_is_missing(at: int) -> None:
    with pytest.raises(ImageTruncatedError):
        outline_tiff(b"MM\0+\0\x08\0\0" + struct.pack(">Q", at) + bytes(50), LIMITS.max_pixels)


def test_scans_of_a_jpeg_in_it_are_counted() -> None:
    few, many = (tiff_of([scan_file([b""] * count)], t259=(7,)) for count in (20, 101))
    assert decoded(few).size == (8, 8)
    with pytest.raises(ImageSuspiciousError, match="scans"):
        outline_tiff(many, LIMITS.max_pixels)


def test_only_what_pixels_need_reaches_the_decoder() -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    for options in ({}, {"compression": "jpeg"}, {"compression": "group4"}):
        image = scene(1).convert("1") if "group4" in options.values() else scene(1)
        tags = {700: b"<x/>", 34377: b"8BIM" * 99, 33723: b"x" * 999, 65000: 7}
        data = encode(image, "TIFF", exif=exif, tiffinfo=tags, icc_profile=bytes(999), **options)
        rebuilt = outline_tiff(data + bytes(10**5), LIMITS.max_pixels).data
        page = TiffReader(rebuilt).directory(8)
        allowed = {256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 347, 530}
        assert set(page.tags) <= allowed
        assert page.next == 0
        assert len(rebuilt) < len(data)


@pytest.mark.parametrize("compression", ["group4", "tiff_lzw", "tiff_adobe_deflate"])
def test_large_blank_pages_have_the_time_and_the_memory(compression: str) -> None:
    process = DecodeProcess(LIMITS)
    blank = encode(Image.new("1", (8000, 8000), 1), "TIFF", compression=compression)
    try:
        received = process.decode(
            blank, None, lambda _: PillowResize((2, 2), Image.Resampling.BILINEAR)
        )
    finally:
        process.close()
    assert received.rgb == b"\xff" * 12
