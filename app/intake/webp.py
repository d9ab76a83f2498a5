"""WebP: rebuilt from its first frame, as libwebp's demuxer comes upon it.

libwebp keeps a list of all chunks and of all frames; Pillow uses the first frame alone.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from app.errors import ImageSuspiciousError
from app.intake.outline import MAX_EXIF_BYTES, Outline, truncated, undecodable

# Of an animation of an hour at six frames a second; each is three.
_MAX_CHUNKS = 65_000
_HEAD_BYTES, _EXTENDED_BYTES, _ANIMATION_BYTES, _FRAME_BYTES = 12, 10, 6, 16
_ANIMATED, _HAS_XMP, _HAS_EXIF, _HAS_ALPHA = 0x02, 0x04, 0x08, 0x10
_PIXELS = (b"VP8 ", b"VP8L")
_IMAGE = (b"ALPH", *_PIXELS)
_METADATA = {b"EXIF": _HAS_EXIF, b"XMP ": _HAS_XMP}


class _Chunk(NamedTuple):
    """A chunk's name, where its content is, and where the next one begins."""

    name: bytes
    start: int
    end: int
    next: int


def outline_webp(data: bytes, _max_pixels: int = 0) -> Outline:
    """Rebuild a WebP of one frame.

    Raises `ImageSuspiciousError`, `ImageTruncatedError`, `ImageUndecodableError`.
    """
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise truncated("WEBP")
    chunks = _Chunks(data, end)
    first = next(chunks, None)
    if first is not None and first.name in _PIXELS:
        return Outline(_riff(*_written(data, first)))
    if first is None or first.name != b"VP8X" or first.end - first.start != _EXTENDED_BYTES:
        raise undecodable("WEBP")
    extended = data[first.start : first.end]
    rebuilt = _RebuiltWebp(data, extended)
    for chunk in chunks:
        if not rebuilt.add(chunk, chunks):
            break
    return rebuilt.outline()


class _Chunks(Iterator[_Chunk]):
    """Goes from chunk to chunk; ends where there is no room for a whole one."""

    def __init__(self, data: bytes, end: int) -> None:
        self.at = _HEAD_BYTES
        self._data = data
        self.end = end
        self._left = _MAX_CHUNKS

    def __next__(self) -> _Chunk:
        chunk = self.peek()
        if chunk is None:
            raise StopIteration
        self._left -= 1
        if self._left < 0:
            raise ImageSuspiciousError("a WebP of too many chunks")
        self.at = chunk.next
        return chunk

    def peek(self) -> _Chunk | None:
        """Return the next chunk, without going over it."""
        start = self.at + 8
        if start > self.end:
            return None
        size = int.from_bytes(self._data[start - 4 : start], "little")
        after = start + size + size % 2  # padded to an even number
        if after > self.end:
            return None
        return _Chunk(self._data[self.at : self.at + 4], start, start + size, after)


class _RebuiltWebp:
    """What is kept of an extended WebP so far."""

    def __init__(self, data: bytes, extended: bytes) -> None:
        self._data = data
        self._extended = extended
        self._flags = extended[0]
        self._animation: bytes | None = None
        self._image: list[bytes | memoryview] = []
        self._frames = 0
        self._metadata: dict[bytes, memoryview] = {}

    def add(self, chunk: _Chunk, chunks: _Chunks) -> bool:
        """Take over what is needed of a chunk; -> whether to read on."""
        is_animated = bool(self._flags & _ANIMATED)
        if chunk.name == b"ANIM" and self._animation is None:
            if chunk.next - chunk.start < _ANIMATION_BYTES:
                raise undecodable("WEBP")
            self._animation = self._data[chunk.start : chunk.start + _ANIMATION_BYTES]
        elif chunk.name == b"ANMF":
            if not is_animated:
                raise undecodable("WEBP")
            return self._add_frame(chunk, chunks)
        elif chunk.name in _IMAGE and not is_animated and not self._image:
            return self._add_still(chunk, chunks)
        elif chunk.name in _IMAGE or chunk.name == b"VP8X":
            return self._end_or_refuse()
        elif self._flags & _METADATA.get(chunk.name, 0):
            self._metadata.setdefault(chunk.name, memoryview(self._data)[chunk.start : chunk.end])
        return True

    def outline(self) -> Outline:
        """Put the parts together."""
        if not self._image:
            raise truncated("WEBP")
        flags = self._flags & (_HAS_ALPHA | _ANIMATED)
        parts = _part(b"VP8X", bytes((flags, 0, 0, 0)) + self._extended[4:])
        if self._flags & _ANIMATED and self._animation is not None:
            parts += _part(b"ANIM", self._animation)
        exif = self._metadata.get(b"EXIF")
        return Outline(
            _riff(*parts, *self._image),
            None if exif is None else bytes(exif[:MAX_EXIF_BYTES]),
            self._metadata.get(b"XMP "),
            animated=self._frames > 1,
        )

    def _end_or_refuse(self) -> bool:
        """Stop at what libwebp refuses, if there are pixels by then."""
        if not self._image:
            raise undecodable("WEBP")
        return False

    def _add_still(self, chunk: _Chunk, chunks: _Chunks) -> bool:
        image = self._image_from(chunk, chunks, chunks.end)
        if image is None or self._animation is not None:
            return self._end_or_refuse()
        self._image = image
        return True

    def _add_frame(self, chunk: _Chunk, chunks: _Chunks) -> bool:
        """Read a frame: a header of its own, then chunks as everywhere."""
        if self._animation is None or chunk.next - chunk.start < _FRAME_BYTES:
            return self._end_or_refuse()
        chunks.at = chunk.start + _FRAME_BYTES
        inside = chunks.peek()
        if inside is None or inside.name not in _IMAGE:
            return True  # no frame: what it holds is read like anything else
        image = self._image_from(next(chunks), chunks, chunk.next)
        if image is None:
            return self._end_or_refuse()
        self._frames += 1
        if not self._image:
            header = self._data[chunk.start : chunk.start + _FRAME_BYTES]
            self._image = _part(b"ANMF", header, *image)
        return True

    def _image_from(
        self, chunk: _Chunk, chunks: _Chunks, end: int
    ) -> list[bytes | memoryview] | None:
        """Return the pieces of an image, from its alpha on if it has one; None if it is broken."""
        alpha: list[bytes | memoryview] = []
        if chunk.name == b"ALPH":
            pixels = next(chunks, None)
            if pixels is None or pixels.name != b"VP8 ":
                return None
            if self._flags & _HAS_ALPHA:
                alpha = _written(self._data, chunk)
            chunk = pixels
        elif (behind := chunks.peek()) is not None and behind.name == b"ALPH":
            next(chunks)  # too late to count
        return alpha + _written(self._data, chunk) if chunk.next <= end else None


def _written(data: bytes, chunk: _Chunk) -> list[bytes | memoryview]:
    """Return a chunk as it is, its byte of padding too: libwebp may read that as pixels."""
    content = memoryview(data)[chunk.start : chunk.next]
    return [chunk.name, struct.pack("<I", chunk.end - chunk.start), content]


def _part(name: bytes, *content: bytes | memoryview) -> list[bytes | memoryview]:
    """Return the pieces of a chunk whose content has an even size."""
    return [name, struct.pack("<I", sum(map(len, content))), *content]


def _riff(*parts: bytes | memoryview) -> bytes:
    size = sum(map(len, parts))
    return b"".join((b"RIFF", struct.pack("<I", 4 + size), b"WEBP", *parts))
