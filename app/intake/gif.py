"""GIF: rebuilt from its screen, its palettes and its first frame, as Pillow comes upon them.

Pillow reads blocks one by one in Python, and of what an extension says it keeps more than is
needed. It gets one frame, and what is said in front of it about transparency.
"""

import re
import struct

from app.errors import ImageError, ImageSuspiciousError, ImageTooLargeError
from app.intake.outline import Outline, undecodable

# 20 MiB in blocks of 255 bytes are 82,000. An extension takes as long as ten of them.
_MAX_BLOCKS = 200_000
_BLOCKS_OF_EXTENSION = 10
_SCREEN_BYTES, _DESCRIPTOR_BYTES = 13, 10
_INTRODUCER = re.compile(rb"[!,;]")  # Pillow goes over anything else
_GRAPHIC_CONTROL, _COMMENT, _APPLICATION = 0xF9, 0xFE, 0xFF
_NETSCAPE = b"NETSCAPE2.0"
_HAS_PALETTE, _IS_TRANSPARENT = 0x80, 1


def outline_gif(data: bytes, max_pixels: int) -> Outline:
    """Rebuild a GIF's first frame on its screen.

    Raises `ImageTooLargeError` where the frame reaches over more than `max_pixels`, for Pillow may
    fill that area before it tells its size; `ImageSuspiciousError`,
    `ImageUndecodableError`.
    """
    blocks = _Blocks(data, _SCREEN_BYTES + _palette_bytes(data, 10))
    screen = data[: blocks.at]
    frame = blocks.find_frame()
    if frame is None:
        raise undecodable("GIF")
    left, top, width, height = struct.unpack_from("<4H", data, frame + 1)
    if (left + width) * (top + height) > max_pixels:
        raise ImageTooLargeError(f"more than {max_pixels} pixels")
    whole = blocks.skip_frame(frame)
    pixels = memoryview(data)[frame : blocks.at]
    end = b";" if whole else b""  # which would be read as pixels where those have no end
    return Outline(
        b"".join((screen, _control(blocks.transparent), pixels, end)),
        animated=whole and _has_frame(data, blocks.at),
    )


def _has_frame(data: bytes, at: int) -> bool:
    """Tell whether there is another frame; one that is broken or far behind is none."""
    blocks = _Blocks(data, at, first=False)
    try:
        frame = blocks.find_frame()
    except ImageError:
        return False
    return frame is not None and frame + 10 + _palette_bytes(data, frame + 9) < len(data)


def _control(transparent: int | None) -> bytes:
    if transparent is None:
        return b""
    return bytes((0x21, _GRAPHIC_CONTROL, 4, _IS_TRANSPARENT, 0, 0, transparent, 0))


def _palette_bytes(data: bytes, flags_at: int) -> int:
    flags = data[flags_at] if flags_at < len(data) else 0
    return 3 << ((flags & 7) + 1) if flags & _HAS_PALETTE else 0


class _Blocks:
    """Reads a GIF's blocks in front of a frame, as Pillow does in front of the `first` and others.

    `at` is how far it came, `transparent` the index that the extensions so far say is clear.
    """

    def __init__(self, data: bytes, at: int, *, first: bool = True) -> None:
        self.at = at
        self.transparent: int | None = None
        self._data = data
        self._first = first
        self._left = _MAX_BLOCKS

    def find_frame(self) -> int | None:
        """Go to the next frame; -> where its descriptor begins, None where there is no whole one.

        Raises `ImageSuspiciousError` for too many blocks, `ImageUndecodableError` for a broken one.
        """
        while found := _INTRODUCER.search(self._data, self.at):
            self.at = found.end()
            if found[0] == b";":
                return None
            if found[0] == b",":
                return found.start() if found.start() + 10 <= len(self._data) else None
            self._count(_BLOCKS_OF_EXTENSION)
            self._skip_extension()
        return None

    def skip_frame(self, frame: int) -> bool:
        """Go behind the pixels of the frame at `frame`; -> whether they have an end."""
        self.at = frame + _DESCRIPTOR_BYTES + _palette_bytes(self._data, frame + 9) + 1
        return self._skip_chain()

    def _skip_extension(self) -> None:
        label = self._data[self.at] if self.at < len(self._data) else 0
        self.at += 1
        block = self._read_block()
        if label == _COMMENT:
            if block:
                self._skip_chain()
            return
        if block is not None and label == _GRAPHIC_CONTROL:
            self._read_control(block)
        elif block and self._first and label == _APPLICATION and block.startswith(_NETSCAPE):
            self._read_block()
        # Also behind an empty block: then it is the chain of whatever comes next.
        self._skip_chain()

    def _read_block(self) -> bytes | None:
        """Read one sub-block; None if it is the empty one that ends a chain."""
        size = self._data[self.at] if self.at < len(self._data) else 0
        start = self.at + 1
        self.at = min(start + size, len(self._data))
        return self._data[start : self.at] if size else None

    def _read_control(self, block: bytes) -> None:
        clear = bool(block) and block[0] & _IS_TRANSPARENT
        if len(block) < (4 if clear else 3):
            raise undecodable("GIF")
        if clear:
            self.transparent = block[3]

    def _skip_chain(self) -> bool:
        """Go behind the next empty sub-block; -> whether there is one."""
        data, at, left = self._data, self.at, self._left
        while at < len(data) and (size := data[at]):
            at += 1 + size
            left -= 1
            if left < 0:
                break
        self.at = min(at + 1, len(data))
        self._count(self._left - left)
        return at < len(data)

    def _count(self, blocks: int) -> None:
        self._left -= blocks
        if self._left < 0:
            raise ImageSuspiciousError("a GIF of too many blocks")
