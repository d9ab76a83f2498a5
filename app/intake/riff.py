"""RIFF, which a WebP is in: chunks of a name, a size and a content padded to an even size."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from app.errors import ImageSuspiciousError

# Of an animation of an hour at six frames a second; each is three.
_MAX_CHUNKS = 65_000
_HEAD_BYTES = 12

Piece = bytes | memoryview


class Chunk(NamedTuple):
    """A chunk's name, where its content is, and where the next one begins."""

    name: bytes
    start: int
    end: int
    next: int


class Chunks(Iterator[Chunk]):
    """Goes from chunk to chunk; ends where there is no room for a whole one."""

    def __init__(self, data: bytes, end: int) -> None:
        self.at = _HEAD_BYTES
        self._data = data
        self.end = end
        self._left = _MAX_CHUNKS

    def __next__(self) -> Chunk:
        chunk = self.peek()
        if chunk is None:
            raise StopIteration
        self._left -= 1
        if self._left < 0:
            raise ImageSuspiciousError("a WebP of too many chunks")
        self.at = chunk.next
        return chunk

    def peek(self) -> Chunk | None:
        """Return the next chunk, without going over it."""
        start = self.at + 8
        if start > self.end:
            return None
        size = int.from_bytes(self._data[start - 4 : start], "little")
        after = start + size + size % 2  # padded to an even number
        if after > self.end:
            return None
        return Chunk(self._data[self.at : self.at + 4], start, start + size, after)


def chunk_pieces(data: bytes, chunk: Chunk) -> list[Piece]:
    """Return a chunk as it is, its byte of padding too: libwebp may read that as pixels."""
    content = memoryview(data)[chunk.start : chunk.next]
    return [chunk.name, struct.pack("<I", chunk.end - chunk.start), content]


def new_chunk(name: bytes, *content: Piece) -> list[Piece]:
    """Return the pieces of a chunk whose content has an even size."""
    return [name, struct.pack("<I", sum(map(len, content))), *content]


def riff_file(*pieces: Piece) -> bytes:
    """Return a WebP of chunks."""
    size = sum(map(len, pieces))
    return b"".join((b"RIFF", struct.pack("<I", 4 + size), b"WEBP", *pieces))
