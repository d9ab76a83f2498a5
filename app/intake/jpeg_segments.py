"""The segments of a JPEG, found as libjpeg finds them."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from app.errors import ImageSuspiciousError

# Honest files of any size have a few hundred: profiles and previews in pieces of 64 KiB.
_MAX_SEGMENTS = 10_000

# Restarts (D0 to D7) and TEM (01) have no content and no meaning between segments.
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
# What ends coded pixels for good. Others are a restart's, or skipped while looking for one.
_END_OF_CODED = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")

END_OF_IMAGE, START_OF_SCAN, QUANTIZATION = 0xD9, 0xDA, 0xDB
FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA, 0xCB})
TABLES = frozenset({0xC4, 0xCC, QUANTIZATION, 0xDD})
# Comments, application data and DNL, of which libjpeg reads the length only. It goes on behind the
# length also where that is 0 or 1.
SKIPPED = frozenset({0xDC, 0xFE, *range(0xE0, 0xF0)})
# Fill in front of a marker, or a byte of FF written wrongly among coded pixels.
_RUN = b"\xff" * 3


class Segment(NamedTuple):
    """A marker (0 for none) at `start` and what belongs to it; a scan has `coded` pixels."""

    marker: int
    start: int
    coded: int
    end: int


def read_segments(data: bytes) -> Iterator[Segment]:
    """Go from segment to segment; the caller stops at the last. Raises `ImageSuspiciousError`."""
    at = 2
    for _ in range(_MAX_SEGMENTS):
        segment = _next_segment(data, at)
        yield segment
        at = segment.end
    raise ImageSuspiciousError(f"a JPEG of more than {_MAX_SEGMENTS} segments")


def _next_segment(data: bytes, at: int) -> Segment:
    """Find the next marker, over whatever is in front of it, as libjpeg does.

    Its marker is 0 if there is none, or the file ends before its content does. It is empty, from
    `start` to `coded`, if libjpeg does not read on.
    """
    found = _MARKER.search(data, at)
    if found is None:
        return Segment(0, len(data), len(data), len(data))
    start, marker = found.start(), data[found.start() + 1]
    if not _has_content(marker):
        return Segment(marker, start, start, start)
    length = int.from_bytes(data[start + 2 : start + 4], "big")
    end = start + 2 + max(length, 2)
    if end > len(data):
        return Segment(0, at, at, at)
    if length < 2 and marker not in SKIPPED:
        return Segment(marker, start, start, start)
    if marker != START_OF_SCAN:
        return Segment(marker, start, end, end)
    behind = _END_OF_CODED.search(data, end)
    return Segment(marker, start, end, behind.start() if behind else len(data))


def _has_content(marker: int) -> bool:
    return marker in SKIPPED or marker in TABLES or marker in FRAMES or marker == START_OF_SCAN


def without_fill(data: bytes, start: int, end: int) -> bytes | memoryview:
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
