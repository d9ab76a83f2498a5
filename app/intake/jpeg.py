"""What a JPEG's bytes give away before it is decoded: how much work, and whether it is a lie.

A progressive JPEG may repeat its scans at will, each of which costs libjpeg a pass over the whole
image; libjpeg fills up what is missing, so that a few bytes may claim any size; and Pillow reads
markers in Python, some of them at a cost that grows with the square of their number.
"""

import re
from dataclasses import dataclass

from app.errors import ImageSuspiciousError, ImageTruncatedError, ImageUndecodableError

_MAX_SCANS = 100
_MAX_SCANNED_PIXELS = 2_000_000_000
_MAX_ARITHMETIC_PIXELS = 2_000_000
_MAX_SEGMENTS = 1_000
# Of a run of fill bytes in front of a marker libjpeg begins anew with each block that Pillow hands
# it: a run of 20 MB takes 3 s.
_RUN_OF_FILL = b"\xff" * 2**12

_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # restarts belong to a scan; others are padding
_FIRST_WITH_LENGTH = 0xC0
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_RESERVED = range(0xF0, 0xFE)
_ARITHMETIC_FRAMES = (0xC9, 0xCA, 0xCB)

_COMMENT = 0xFE
_APPLICATION = range(0xE0, 0xF0)
_HOLDS_COLOUR_SPACE = (0xE0, 0xEE)  # JFIF and Adobe
_MAY_HOLD_ORIENTATION = (b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0")


@dataclass(frozen=True)
class JpegOutline:
    """A JPEG without the metadata that its pixels do not need, and what decoding it involves."""

    data: bytes
    scans: int
    arithmetic: bool


@dataclass(frozen=True)
class _Segment:
    marker: int
    start: int
    end: int

    @property
    def sound(self) -> bool:
        """Whether libjpeg reads on after it."""
        if self.marker in (_START_OF_IMAGE, _END_OF_IMAGE) or self.marker in _RESERVED:
            return False
        return self.marker < _FIRST_WITH_LENGTH or self.end - self.start >= 4


def outline_jpeg(data: bytes) -> JpegOutline:
    """Walk a JPEG's markers up to its end; what follows that is no part of the image.

    Raises `ImageSuspiciousError`, or what libjpeg would say of it: `ImageTruncatedError`,
    `ImageUndecodableError`.
    """
    header: list[_Segment] = []
    scans = 0
    at = 2
    for _ in range(_MAX_SEGMENTS):
        segment = _next_segment(data, at)
        if segment is None or (scans and not segment.sound):
            break  # for the image's last scan that is as good an end as any
        if not segment.sound:
            raise ImageUndecodableError("the JPEG cannot be decoded")
        if not scans:
            header.append(segment)
        scans += segment.marker == _START_OF_SCAN
        if scans > _MAX_SCANS:
            raise ImageSuspiciousError(f"a JPEG of more than {_MAX_SCANS} scans")
        at = segment.end
    else:
        raise ImageSuspiciousError(f"a JPEG of more than {_MAX_SEGMENTS} segments")
    if not scans and at > len(data):
        raise ImageTruncatedError("the JPEG ends early")
    if not scans:
        raise ImageUndecodableError("the JPEG cannot be decoded")
    _check_fill(data, header[-1].end, segment.start if segment else len(data))
    arithmetic = any(segment.marker in _ARITHMETIC_FRAMES for segment in header)
    return JpegOutline(_without_metadata(data, header), scans, arithmetic)


def check_jpeg(outline: JpegOutline, size: tuple[int, int]) -> None:
    """Refuse a JPEG of `size` (width, height) that would cost too much or cannot be what it claims.

    Raises `ImageSuspiciousError`.
    """
    width, height = size
    if outline.arithmetic and outline.scans * width * height > _MAX_ARITHMETIC_PIXELS:
        # Where its data ends, libjpeg makes up the costliest blocks: 14 s from 2.5 kB.
        raise ImageSuspiciousError("an arithmetic-coded JPEG of this size")
    if outline.scans * width * height > _MAX_SCANNED_PIXELS:
        raise ImageSuspiciousError(f"a JPEG of {outline.scans} scans at this size")
    # Huffman coding spends at least one bit on each block of 8 x 8 pixels.
    blocks = -(-width // 8) * -(-height // 8)
    if not outline.arithmetic and 8 * len(outline.data) < blocks:
        raise ImageSuspiciousError("the JPEG is too short for the size it claims")


def _next_segment(data: bytes, at: int) -> _Segment | None:
    """Find the next marker, over padding and coded pixels, as libjpeg does."""
    found = _MARKER.search(data, at)
    if found is None:
        return None
    start, marker = found.start(), data[found.start() + 1]
    if marker < _FIRST_WITH_LENGTH:
        return _Segment(marker, start, start + 2)
    if start + 4 > len(data):
        return None
    return _Segment(marker, start, start + 2 + int.from_bytes(data[start + 2 : start + 4], "big"))


def _check_fill(data: bytes, start: int, end: int) -> None:
    if data.find(_RUN_OF_FILL, start, end) >= 0:
        raise ImageSuspiciousError("a JPEG with kilobytes of padding among its pixels")


def _without_metadata(data: bytes, header: list[_Segment]) -> bytes:
    """Keep what decides the pixels, and of all metadata the first Exif and the first XMP."""
    view = memoryview(data)
    *before_scan, first_scan = header
    kept = [view[:2]]
    wanted = list(_MAY_HOLD_ORIENTATION)
    for segment in before_scan:
        if _is_metadata(segment.marker):
            holds = _held(data, segment, wanted)
            if holds is None:
                continue
            wanted.remove(holds)
        kept.append(view[segment.start : segment.end])
    kept.append(view[first_scan.start :])
    return data if sum(map(len, kept)) == len(data) else b"".join(kept)


def _is_metadata(marker: int) -> bool:
    application = marker in _APPLICATION and marker not in _HOLDS_COLOUR_SPACE
    return application or marker == _COMMENT


def _held(data: bytes, segment: _Segment, wanted: list[bytes]) -> bytes | None:
    return next((name for name in wanted if data.startswith(name, segment.start + 4)), None)
