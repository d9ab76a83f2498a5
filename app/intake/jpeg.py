"""JPEG: rebuilt from its frame, its tables and its scans, as libjpeg comes upon them.

A progressive JPEG may repeat its scans at will, each of which costs libjpeg a pass over the whole
image; libjpeg fills up what is missing, so that a few bytes may claim any size; and both libjpeg
and Pillow read some of the rest at a cost that grows with the square of its size.
"""

from dataclasses import dataclass, field

from app.errors import ImageSuspiciousError
from app.intake.jpeg_segments import (
    END_OF_IMAGE,
    FRAMES,
    QUANTIZATION,
    SKIPPED,
    START_OF_SCAN,
    TABLES,
    Segment,
    read_segments,
    without_fill,
)
from app.intake.outline import Outline, truncated, undecodable

_MAX_SCANS = 100
_MAX_SCANNED_PIXELS = 2_000_000_000
_MAX_ARITHMETIC_PIXELS = 2_000_000
# Four tables of at most 129 bytes are in use at a time, and Pillow reads each in Python.
_MAX_QUANTIZATION_BYTES = 64 * 2**10

_ARITHMETIC_FRAMES = frozenset({0xC9, 0xCA, 0xCB})
# Application data that libjpeg reads, for the colour space: its name, and the bytes looked at.
_COLOUR_SPACE = {0xE0: (b"JFIF\0", 14), 0xEE: (b"Adobe", 12)}
_APP1 = 0xE1
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"

# Where a file ends without an end marker. libjpeg reads ahead by up to 57 bits: behind coded pixels
# it gets as many, so that it can finish the last block, and no more. Behind a segment it gets a
# marker whose content never comes.
_READ_AHEAD = bytes(8)
_NOTHING_MORE = b"\xff\xfe"


@dataclass(frozen=True)
class JpegOutline(Outline):
    """A rebuilt JPEG, and what decoding it involves."""

    scans: int = 1
    arithmetic: bool = False

    def check_size(self, size: tuple[int, int]) -> None:
        """Refuse what would cost too much at `size` (width, height), or is too short for it."""
        width, height = size
        if self.arithmetic and self.scans * width * height > _MAX_ARITHMETIC_PIXELS:
            # Where its data ends, libjpeg makes up the costliest blocks: 14 s from 2.5 kB.
            raise ImageSuspiciousError("an arithmetic-coded JPEG of this size")
        if self.scans * width * height > _MAX_SCANNED_PIXELS:
            raise ImageSuspiciousError(f"a JPEG of {self.scans} scans at this size")
        # Huffman coding spends at least one bit on each block of 8 x 8 pixels.
        blocks = -(-width // 8) * -(-height // 8)
        if not self.arithmetic and 8 * len(self.data) < blocks:
            raise ImageSuspiciousError("the JPEG is too short for the size it claims")


def outline_jpeg(data: bytes, _max_pixels: int = 0) -> JpegOutline:
    """Rebuild a JPEG up to its end; what follows that is no part of the image.

    Raises `ImageSuspiciousError`, or what libjpeg would say of it: `ImageTruncatedError`,
    `ImageUndecodableError`.
    """
    rebuilt = _RebuiltJpeg(data)
    for segment in read_segments(data):
        if not rebuilt.add(segment):
            break
    return rebuilt.outline()


@dataclass
class _RebuiltJpeg:
    """The parts of a JPEG that are kept so far."""

    data: bytes
    tables: list[bytes | memoryview] = field(default_factory=list)  # since the last scan
    scans: list[bytes | memoryview] = field(default_factory=list)  # each behind its tables
    colour_space: dict[int, bytes] = field(default_factory=dict)
    scan_count: int = 0
    frame: int = 0
    quantization_bytes: int = 0
    ends_in_coded: bool = False  # for want of a marker
    exif: bytes | None = None
    xmp: bytes | None = None
    end: bytes = b""

    def add(self, segment: Segment) -> bool:
        """Take over what is needed of a segment; -> whether libjpeg reads on."""
        marker = segment.marker
        if segment.coded == segment.start:
            self._finish(segment)
            return False
        if marker in SKIPPED:
            if not self.scan_count:
                self._add_metadata(segment)
        elif marker in TABLES:
            self._add_table(segment)
        elif marker == START_OF_SCAN and self.frame:
            self._add_scan(segment)
        elif marker in FRAMES and not self.frame:
            self.frame = marker
            self.tables.append(self._bytes_of(segment))
        else:
            self._finish(segment)
            return False
        return True

    def outline(self) -> JpegOutline:
        """Put the parts together."""
        head = [b"\xff\xd8"]
        for marker, content in self.colour_space.items():
            head.append(bytes((0xFF, marker, 0, len(content) + 2)) + content)
        return JpegOutline(
            b"".join([*head, *self.scans, *self.tables, self.end]),
            exif=self.exif,
            xmp=self.xmp,
            scans=self.scan_count,
            arithmetic=self.frame in _ARITHMETIC_FRAMES,
        )

    def _bytes_of(self, segment: Segment) -> memoryview:
        return memoryview(self.data)[segment.start : segment.coded]

    def _add_metadata(self, segment: Segment) -> None:
        """Keep the colour space, and of what may tell an orientation the first."""
        content = self._bytes_of(segment)[4:]
        if segment.marker == _APP1:
            start = bytes(content[: len(_XMP)])
            if self.exif is None and start.startswith(_EXIF):
                self.exif = bytes(content)
            elif self.xmp is None and start == _XMP:
                self.xmp = bytes(content)
        elif segment.marker in _COLOUR_SPACE:
            name, length = _COLOUR_SPACE[segment.marker]
            if len(content) >= length and content[: len(name)] == name:
                self.colour_space[segment.marker] = bytes(content[:length])

    def _add_table(self, segment: Segment) -> None:
        content = self._bytes_of(segment)
        if segment.marker == QUANTIZATION:
            self.quantization_bytes += len(content)
            if self.quantization_bytes > _MAX_QUANTIZATION_BYTES:
                raise ImageSuspiciousError("a JPEG of too many tables")
        self.tables.append(content)

    def _add_scan(self, segment: Segment) -> None:
        self.scan_count += 1
        if self.scan_count > _MAX_SCANS:
            raise ImageSuspiciousError(f"a JPEG of more than {_MAX_SCANS} scans")
        coded = without_fill(self.data, segment.coded, segment.end)
        self.scans += [*self.tables, self._bytes_of(segment), coded]
        self.tables = []
        self.ends_in_coded = segment.end == len(self.data)

    def _finish(self, segment: Segment) -> None:
        """End where libjpeg ends: at the end marker, at what it does not take, or for want of more.

        A marker that it does not take is not passed on: an image that is whole by then stays so.
        """
        if not self.scan_count:
            is_cut_off = not segment.marker and segment.start < len(self.data)
            raise truncated("JPEG") if is_cut_off else undecodable("JPEG")
        if segment.marker == END_OF_IMAGE:
            self.end = b"\xff\xd9"
        elif segment.marker or self.ends_in_coded:
            self.tables = []
            self.end = _READ_AHEAD
        else:
            self.end = _NOTHING_MORE
