"""PNG: rebuilt from its header, palette, transparency and pixels.

Pillow handles each chunk in Python, inflates texts and profiles, and keeps them all. None of them
reaches it: of all metadata the last Exif and the last XMP are looked at, for an orientation.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from app.errors import ImageSuspiciousError
from app.intake.outline import MAX_EXIF_BYTES, Outline, truncated, undecodable
from app.intake.png_transparency import DeepClearOutline, clear_samples, is_deep_colour

# As many as a file of the tallest size has that writes each row on its own, and half as many again.
_MAX_CHUNKS = 100_000
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NAME = re.compile(rb"\w{4}")
_HEADER_BYTES = 13

_MAX_UNPACKED_BYTES = 2**20
_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_EXIF_KEYWORD, _XMP_KEYWORD = b"Raw profile type exif", b"XML:com.adobe.xmp"


class _Chunk(NamedTuple):
    """A chunk's name and where its content is; `end` may be behind the file's end."""

    name: bytes
    start: int
    end: int


def outline_png(data: bytes, _max_pixels: int = 0) -> Outline:
    """Rebuild a PNG: its default image, without any frames that follow.

    Raises `ImageSuspiciousError`, `ImageTruncatedError`, `ImageUndecodableError`.
    """
    chunks = _chunks(data)
    header = next(chunks, None)
    if header is None:
        raise truncated("PNG")
    if header.name != b"IHDR" or header.end - header.start != _HEADER_BYTES:
        raise undecodable("PNG")
    rebuilt = _RebuiltPng(data, _checked(data, header))
    for chunk in chunks:
        if not rebuilt.add(chunk):
            break
    return rebuilt.outline()


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """Go from chunk to chunk; end where a name is none, or there is no room for one."""
    at = len(_SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data) or not _NAME.match(data, at + 4):
            return
        length = int.from_bytes(data[at : at + 4], "big")
        yield _Chunk(data[at + 4 : at + 8], at + 8, at + 8 + length)
        at += 12 + length
    raise ImageSuspiciousError("a PNG of too many chunks")


def _checked(data: bytes, chunk: _Chunk) -> bytes:
    """Return a chunk's content if its checksum is right."""
    if chunk.end + 4 > len(data):
        raise truncated("PNG")
    checksum = int.from_bytes(data[chunk.end : chunk.end + 4], "big")
    if zlib.crc32(memoryview(data)[chunk.start - 4 : chunk.end]) != checksum:
        raise undecodable("PNG")
    return data[chunk.start : chunk.end]


@dataclass
class _RebuiltPng:
    """What is kept of a PNG so far."""

    data: bytes
    header: bytes
    palette: bytes | None = None
    transparency: bytes | None = None
    pixels: list[memoryview] = field(default_factory=list)
    pixels_ended: bool = False
    frames: int | None = None  # that an APNG says it has
    framed: bool = False  # whether the default image is the first of them
    exif: _Chunk | None = None
    exif_text: _Chunk | None = None
    xmp: _Chunk | None = None

    @property
    def animated(self) -> bool:
        return self.frames is not None and self.frames + (not self.framed) > 1

    def add(self, chunk: _Chunk) -> bool:
        """Take over what is needed of a chunk; -> whether to read on."""
        if chunk.name == b"IEND":
            return False
        if chunk.name == b"IDAT" and not self.pixels_ended:
            self.pixels.append(memoryview(self.data)[chunk.start : chunk.end])
            return chunk.end <= len(self.data)
        if chunk.end > len(self.data):
            return False
        if self.pixels:
            self.pixels_ended = True
        else:
            self._add_header(chunk)
        if chunk.name == b"fcTL" and self.animated and self.pixels_ended:
            return False
        self._add_metadata(chunk)
        return True

    def outline(self) -> Outline:
        """Put the parts together."""
        if not self.pixels:
            raise truncated("PNG")
        parts = [_SIGNATURE, *_written(b"IHDR", self.header)]
        if self.palette is not None:
            parts += _written(b"PLTE", self.palette)
        clear = self.transparency
        is_deep = is_deep_colour(self.header)
        if clear is not None and not is_deep:
            parts += _written(b"tRNS", clear)
        parts += [*_written(b"IDAT", *self.pixels), *_written(b"IEND")]
        told = b"".join(parts), self._exif(), self._xmp()
        if clear is not None and is_deep:
            return DeepClearOutline(*told, animated=self.animated, transparent=True, clear=clear)
        return Outline(*told, animated=self.animated)

    def _add_header(self, chunk: _Chunk) -> None:
        """Take what counts in front of the pixels only."""
        if chunk.name in (b"IHDR", b"fdAT"):  # a second one; pixels of a frame without an image
            raise undecodable("PNG")
        if chunk.name == b"PLTE":
            self.palette = _checked(self.data, chunk)
        elif chunk.name == b"tRNS":
            clear = clear_samples(self.header, _checked(self.data, chunk))
            self.transparency = self.transparency if clear is None else clear
        elif chunk.name == b"acTL" and chunk.end - chunk.start >= 8:
            self._add_animation(chunk)
        elif chunk.name == b"fcTL" and chunk.end - chunk.start >= 20:
            self._add_frame(chunk)

    def _add_animation(self, chunk: _Chunk) -> None:
        frames = int.from_bytes(self.data[chunk.start : chunk.start + 4], "big")
        self.frames = frames if self.frames is None and 0 < frames <= 2**31 else None

    def _add_frame(self, chunk: _Chunk) -> None:
        """Refuse a first frame that is not the whole image, which Pillow would put into a part."""
        width, height, left, top = struct.unpack_from(">4I", self.data, chunk.start + 4)
        if (left, top) != (0, 0) or struct.pack(">II", width, height) != self.header[:8]:
            raise undecodable("PNG")
        self.framed = True

    def _add_metadata(self, chunk: _Chunk) -> None:
        if chunk.name == b"eXIf":
            self.exif = chunk
        elif chunk.name in _TEXTS:
            if self.data.startswith(_EXIF_KEYWORD + b"\0", chunk.start, chunk.end):
                self.exif_text = chunk
            elif self.data.startswith(_XMP_KEYWORD + b"\0", chunk.start, chunk.end):
                self.xmp = chunk

    def _exif(self) -> bytes | None:
        if self.exif is not None:
            return self.data[self.exif.start : min(self.exif.end, self.exif.start + MAX_EXIF_BYTES)]
        if self.exif_text is None:
            return None
        # Two digits a byte, in lines, behind a name and a length.
        lines = bytes(_text(self.data, self.exif_text)[: 3 * MAX_EXIF_BYTES]).split(b"\n", 3)
        digits = lines[-1].replace(b"\n", b"")[: 2 * MAX_EXIF_BYTES]
        try:
            return bytes.fromhex(digits.decode("latin-1"))
        except ValueError:
            return None

    def _xmp(self) -> bytes | memoryview | None:
        return None if self.xmp is None else _text(self.data, self.xmp)


def _text(data: bytes, chunk: _Chunk) -> bytes | memoryview:
    """Return what a text chunk says, of a packed one the beginning; nothing if it is broken."""
    at = data.index(b"\0", chunk.start) + 1
    packed = chunk.name == b"zTXt"
    if packed:
        at += 1
    elif chunk.name == b"iTXt":
        packed = data[at] != 0
        at += 2
        for _ in ("language", "keyword in it"):
            at = data.find(b"\0", at, chunk.end) + 1
            if not at:
                return b""
    text = memoryview(data)[at : chunk.end]
    if not packed:
        return text
    try:
        return zlib.decompressobj().decompress(text, _MAX_UNPACKED_BYTES)
    except zlib.error:
        return b""


def _written(name: bytes, *content: bytes | memoryview) -> list[bytes | memoryview]:
    """Return the pieces of one chunk."""
    checksum = zlib.crc32(name)
    for piece in content:
        checksum = zlib.crc32(piece, checksum)
    length = sum(map(len, content))
    return [length.to_bytes(4, "big"), name, *content, checksum.to_bytes(4, "big")]
