"""JPEG: rebuilt from its frame, its tables and its scans, as libjpeg comes upon them.

A progressive JPEG may repeat its scans at will, each of which costs libjpeg a pass over the whole
image; libjpeg fills up what is missing, so that a few bytes may claim any size; and both libjpeg
and Pillow read some of the rest at a cost that grows with the square of its size.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from app.errors import ImageSuspiciousError
from app.intake.outline import Outline, truncated, undecodable

_MAX_SCANS = 100
_MAX_SCANNED_PIXELS = 2_000_000_000
_MAX_ARITHMETIC_PIXELS = 2_000_000
# Honest files of any size have a few hundred: profiles and previews in pieces of 64 KiB.
_MAX_SEGMENTS = 10_000
# Four tables of at most 129 bytes are in use at a time, and Pillow reads each in Python.
_MAX_QUANTIZATION_BYTES = 64 * 2**10

# Restarts (D0 to D7) and TEM (01) have no content and no meaning between segments.
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
# What ends coded pixels for good. Others are a restart's, or skipped while looking for one.
_END_OF_CODED = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")

_END_OF_IMAGE, _START_OF_SCAN, _QUANTIZATION = 0xD9, 0xDA, 0xDB
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA, 0xCB})
_ARITHMETIC_FRAMES = frozenset({0xC9, 0xCA, 0xCB})
_TABLES = frozenset({0xC4, 0xCC, _QUANTIZATION, 0xDD})
# Comments, application data and DNL, of which libjpeg reads the length only. It goes on behind the
# length also where that is 0 or 1.
_SKIPPED = frozenset({0xDC, 0xFE, *range(0xE0, 0xF0)})
# Of these it reads JFIF's and Adobe's, for the colour space: name, and bytes that it looks at.
_COLOUR_SPACE = {0xE0: (b"JFIF\0", 14), 0xEE: (b"Adobe", 12)}
_APP1 = 0xE1
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"

# Fill in front of a marker, or a byte of FF written wrongly among coded pixels.
_RUN = b"\xff" * 3

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


class _Segment(NamedTuple):
    """A marker (0 for none) at `start` and what belongs to it; a scan has `coded` pixels."""

    marker: int
    start: int
    coded: int
    end: int


def outline_jpeg(data: bytes, _max_pixels: int = 0) -> JpegOutline:
    """Rebuild a JPEG up to its end; what follows that is no part of the image.

    Raises `ImageSuspiciousError`, or what libjpeg would say of it: `ImageTruncatedError`,
    `ImageUndecodableError`.
    """
    rebuilt = _RebuiltJpeg(data)
    for segment in _segments(data):
        if not rebuilt.add(segment):
            break
    return rebuilt.outline()


def _segments(data: bytes) -> Iterator[_Segment]:
    at = 2
    for _ in range(_MAX_SEGMENTS):
        segment = _next_segment(data, at)
        yield segment
        at = segment.end
    raise ImageSuspiciousError(f"a JPEG of more than {_MAX_SEGMENTS} segments")


def _next_segment(data: bytes, at: int) -> _Segment:
    """Find the next marker, over whatever is in front of it, as libjpeg does.

    Its marker is 0 if the file ends before its content does. It is empty, from `start` to `coded`,
    if libjpeg does not read on.
    """
    found = _MARKER.search(data, at)
    if found is None:
        return _Segment(0, at, at, at)
    start, marker = found.start(), data[found.start() + 1]
    if not _has_content(marker):
        return _Segment(marker, start, start, start)
    length = int.from_bytes(data[start + 2 : start + 4], "big")
    end = start + 2 + max(length, 2)
    if end > len(data):
        return _Segment(0, at, at, at)
    if length < 2 and marker not in _SKIPPED:
        return _Segment(marker, start, start, start)
    if marker != _START_OF_SCAN:
        return _Segment(marker, start, end, end)
    behind = _END_OF_CODED.search(data, end)
    return _Segment(marker, start, end, behind.start() if behind else len(data))


def _has_content(marker: int) -> bool:
    return marker in _SKIPPED or marker in _TABLES or marker in _FRAMES or marker == _START_OF_SCAN


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

    def add(self, segment: _Segment) -> bool:
        """Take over what is needed of a segment; -> whether libjpeg reads on."""
        marker = segment.marker
        if segment.coded == segment.start:
            self._finish(segment)
            return False
        if marker in _SKIPPED:
            if not self.scan_count:
                self._add_metadata(segment)
        elif marker in _TABLES:
            self._add_table(segment)
        elif marker == _START_OF_SCAN and self.frame:
            self._add_scan(segment)
        elif marker in _FRAMES and not self.frame:
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

    def _bytes_of(self, segment: _Segment) -> memoryview:
        return memoryview(self.data)[segment.start : segment.coded]

    def _add_metadata(self, segment: _Segment) -> None:
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

    def _add_table(self, segment: _Segment) -> None:
        content = self._bytes_of(segment)
        if segment.marker == _QUANTIZATION:
            self.quantization_bytes += len(content)
            if self.quantization_bytes > _MAX_QUANTIZATION_BYTES:
                raise ImageSuspiciousError("a JPEG of too many tables")
        self.tables.append(content)

    def _add_scan(self, segment: _Segment) -> None:
        self.scan_count += 1
        if self.scan_count > _MAX_SCANS:
            raise ImageSuspiciousError(f"a JPEG of more than {_MAX_SCANS} scans")
        coded = _without_fill(self.data, segment.coded, segment.end)
        self.scans += [*self.tables, self._bytes_of(segment), coded]
        self.tables = []
        self.ends_in_coded = segment.end == len(self.data)

    def _finish(self, segment: _Segment) -> None:
        """End where libjpeg ends: at the end marker, at what it does not take, or for want of more.

        A marker that it does not take is not passed on: an image that is whole by then stays so.
        """
        if not self.scan_count:
            raise undecodable("JPEG") if segment.marker else truncated("JPEG")
        if segment.marker == _END_OF_IMAGE:
            self.end = b"\xff\xd9"
        elif segment.marker or self.ends_in_coded:
            self.tables = []
            self.end = _READ_AHEAD
        else:
            self.end = _NOTHING_MORE


def _without_fill(data: bytes, start: int, end: int) -> bytes | memoryview:
    """Shorten each run of FF to two, and leave out one in front of a marker.

    They mean the same, but libjpeg begins anew with a run at each block of the file that Pillow
    hands it: 20 MB take 3 s. It is not made one: of damaged pixels libjpeg's fast path, which knows
    no runs, makes something else than its slow one.
    """
    if data.find(_RUN, start, end) < 0 and data[end - 1] != 0xFF:
        return memoryview(data)[start:end]
    coded = data[start:end].rstrip(b"\xff")
    while _RUN in coded:
        for length in (4096, 64, 8, len(_RUN)):
            coded = coded.replace(b"\xff" * length, b"\xff\xff")
    return coded
