"""ISO base media files, which AVIF and HEIC are: boxes of a size, a name and a content."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from app.errors import ImageSuspiciousError
from app.intake.outline import undecodable

_MAX_BOXES = 10_000
_HEAD_BYTES, _LARGE_HEAD_BYTES = 8, 16


class Box(NamedTuple):
    """A box's name and its content."""

    name: bytes
    content: memoryview


def read_boxes(data: memoryview) -> Iterator[Box]:
    """Go from box to box; the last may reach up to the end of the data, or claim more.

    Raises `ImageSuspiciousError` for too many, `ImageUndecodableError` for one of no size.
    """
    at = 0
    for _ in range(_MAX_BOXES):
        if at + _HEAD_BYTES > len(data):
            return
        size, name = struct.unpack_from(">I4s", data, at)
        head = _HEAD_BYTES
        if size == 1 and at + _LARGE_HEAD_BYTES <= len(data):
            (size,) = struct.unpack_from(">Q", data, at + head)
            head = _LARGE_HEAD_BYTES
        elif size == 0:
            size = len(data) - at
        if size < head:
            raise undecodable("file")
        yield Box(name, data[at + head : at + size])
        at += size
    raise ImageSuspiciousError("a file of too many boxes")


def new_box(name: bytes, *content: bytes | memoryview) -> bytes:
    """Write a box."""
    return b"".join((struct.pack(">I4s", 8 + sum(map(len, content)), name), *content))


def new_full_box(name: bytes, *content: bytes | memoryview, version: int = 0) -> bytes:
    """Write a box that begins with a version, and flags of which none is set."""
    return new_box(name, bytes((version, 0, 0, 0)), *content)


class Fields:
    """Reads numbers of a box's content one after the other; `ImageUndecodableError` behind it."""

    def __init__(self, content: memoryview) -> None:
        self._content = content
        self.at = 0

    def number(self, size: int) -> int:
        """Return the next number, of `size` bytes, which may be none."""
        return int.from_bytes(self.take(size), "big")

    def version(self) -> int:
        """Return the version that a full box begins with, and go over its flags."""
        return self.number(4) >> 24

    def take(self, size: int) -> memoryview:
        """Return the next bytes."""
        taken = self._content[self.at : self.at + size]
        if len(taken) < size:
            raise undecodable("file")
        self.at += size
        return taken

    @property
    def rest(self) -> memoryview:
        """What has not been read."""
        return self._content[self.at :]
