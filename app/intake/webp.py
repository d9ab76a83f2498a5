"""WebP: rebuilt from its first frame, as libwebp's demuxer comes upon it.

libwebp keeps a list of all chunks and of all frames; Pillow uses the first frame alone, but takes
the memory for two as soon as the file is opened.
"""

import struct

from app.intake.outline import MAX_EXIF_BYTES, Outline, truncated, undecodable
from app.intake.riff import Chunk, Chunks, Piece, chunk_pieces, new_chunk, riff_file

_EXTENDED_BYTES, _ANIMATION_BYTES, _FRAME_BYTES = 10, 6, 16
_ANIMATED, _HAS_XMP, _HAS_EXIF, _HAS_ALPHA = 0x02, 0x04, 0x08, 0x10
_PIXELS = (b"VP8 ", b"VP8L")
_IMAGE = (b"ALPH", *_PIXELS)
_LOSSLESS_SIGNATURE, _LOSSY_SIGNATURE = 0x2F, b"\x9d\x01\x2a"
_MAX_SIDE = 2**14 - 1  # as a mask; above it are a scale or other fields
_METADATA = {b"EXIF": _HAS_EXIF, b"XMP ": _HAS_XMP}


def outline_webp(data: bytes, _max_pixels: int = 0) -> Outline:
    """Rebuild a WebP of one frame.

    Raises `ImageSuspiciousError`, `ImageTruncatedError`, `ImageUndecodableError`.
    """
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise truncated("WEBP")
    chunks = Chunks(data, end)
    first = next(chunks, None)
    if first is not None and first.name in _PIXELS:
        width, height, alpha = _image_header(data, first)
        parts = chunk_pieces(data, first)
        return Outline(riff_file(*parts), size=(width, height), transparent=alpha)
    if first is None or first.name != b"VP8X" or first.end - first.start != _EXTENDED_BYTES:
        raise undecodable("WEBP")
    extended = data[first.start : first.end]
    rebuilt = _RebuiltWebp(data, extended)
    for chunk in chunks:
        if not rebuilt.add(chunk, chunks):
            break
    return rebuilt.outline()


class _RebuiltWebp:
    """What is kept of an extended WebP so far."""

    def __init__(self, data: bytes, extended: bytes) -> None:
        self._data = data
        self._extended = extended
        self._flags = extended[0]
        self._animation: bytes | None = None
        self._image: list[Piece] = []
        self._frames = 0
        self._metadata: dict[bytes, memoryview] = {}

    def add(self, chunk: Chunk, chunks: Chunks) -> bool:
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
        parts = new_chunk(b"VP8X", bytes((flags, 0, 0, 0)) + self._extended[4:])
        if self._flags & _ANIMATED and self._animation is not None:
            parts += new_chunk(b"ANIM", self._animation)
        exif = self._metadata.get(b"EXIF")
        return Outline(
            riff_file(*parts, *self._image),
            None if exif is None else bytes(exif[:MAX_EXIF_BYTES]),
            self._metadata.get(b"XMP "),
            animated=self._frames > 1,
            size=(1 + _u24(self._extended, 4), 1 + _u24(self._extended, 7)),
            transparent=bool(flags & _HAS_ALPHA) or b"VP8L" in self._image,
        )

    def _end_or_refuse(self) -> bool:
        """Stop at what libwebp refuses, if there are pixels by then."""
        if not self._image:
            raise undecodable("WEBP")
        return False

    def _add_still(self, chunk: Chunk, chunks: Chunks) -> bool:
        image = self._image_from(chunk, chunks, chunks.end)
        if image is None or self._animation is not None:
            return self._end_or_refuse()
        self._image = image
        return True

    def _add_frame(self, chunk: Chunk, chunks: Chunks) -> bool:
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
            self._image = new_chunk(b"ANMF", header, *image)
        return True

    def _image_from(self, chunk: Chunk, chunks: Chunks, end: int) -> list[Piece] | None:
        """Return the pieces of an image, from its alpha on if it has one; None if it is broken."""
        alpha: list[Piece] = []
        if chunk.name == b"ALPH":
            pixels = next(chunks, None)
            if pixels is None or pixels.name != b"VP8 ":
                return None
            if self._flags & _HAS_ALPHA:
                alpha = chunk_pieces(self._data, chunk)
            chunk = pixels
        elif (behind := chunks.peek()) is not None and behind.name == b"ALPH":
            next(chunks)  # too late to count
        return alpha + chunk_pieces(self._data, chunk) if chunk.next <= end else None


def _image_header(data: bytes, chunk: Chunk) -> tuple[int, int, bool]:
    """Return the width, the height and whether there is alpha, of pixels on their own."""
    content = data[chunk.start : min(chunk.end, chunk.start + 10)].ljust(10, b"\0")
    if chunk.name == b"VP8L" and content[0] == _LOSSLESS_SIGNATURE:
        (bits,) = struct.unpack_from("<I", content, 1)
        return 1 + (bits & _MAX_SIDE), 1 + (bits >> 14 & _MAX_SIDE), bool(bits >> 28 & 1)
    if chunk.name == b"VP8 " and content[3:6] == _LOSSY_SIGNATURE:
        width, height = struct.unpack_from("<HH", content, 6)
        return width & _MAX_SIDE, height & _MAX_SIDE, False
    raise undecodable("WEBP")


def _u24(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 3], "little")
