"""How many parts an image file is made of, counted before Pillow handles each of them in Python.

None of the limits is near what an honest file has; without them 20 MiB of tiny parts take seconds
to half a minute of a core.
"""

import struct

from app.errors import ImageSuspiciousError, ImageTooLargeError

_MAX_PNG_CHUNKS = 25_000
# Each may inflate to a megabyte, also when it then turns out to be broken and is dropped.
_MAX_INFLATED_CHUNKS = 100
_INFLATED_CHUNKS = frozenset({b"iCCP", b"zTXt", b"iTXt"})

# libwebp keeps a list of them: of two million, 100 MB.
_MAX_WEBP_CHUNKS = 25_000

_MAX_GIF_BLOCKS = 200_000
_GIF_EXTENSION, _GIF_IMAGE, _GIF_END = 0x21, 0x2C, 0x3B

_RUN_LENGTH_CODED = (1, 2)
_MAX_RUN_LENGTH_BYTES = 2 * 2**20
_MAX_RUN_LENGTH_PIXELS = 4_000_000


def check_parts(data: bytes, image_format: str, max_pixels: int) -> None:
    """Refuse a file of far too many parts; raises `ImageSuspiciousError`.

    Raises `ImageTooLargeError` for a GIF whose first frame has more than `max_pixels`.
    """
    if image_format == "png":
        _check_png(data)
    elif image_format == "webp":
        _check_webp(data)
    elif image_format == "gif":
        _check_gif(data, max_pixels)
    elif image_format == "bmp":
        _check_bmp(data)


def _check_png(data: bytes) -> None:
    at, chunks, inflated = 8, 0, 0
    while at + 8 <= len(data):
        chunks += 1
        inflated += data[at + 4 : at + 8] in _INFLATED_CHUNKS
        if chunks > _MAX_PNG_CHUNKS or inflated > _MAX_INFLATED_CHUNKS:
            raise ImageSuspiciousError("a PNG of too many chunks")
        at += 12 + int.from_bytes(data[at : at + 4], "big")


def _check_webp(data: bytes) -> None:
    at, chunks = 12, 0
    while at + 8 <= len(data):
        chunks += 1
        if chunks > _MAX_WEBP_CHUNKS:
            raise ImageSuspiciousError("a WebP of too many chunks")
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size + size % 2  # padded to an even number


def _check_gif(data: bytes, max_pixels: int) -> None:
    """Count blocks up to the second frame: so far Pillow reads to tell whether there is one."""
    at = 13 + _gif_palette_bytes(data, 10)
    blocks = frames = 0
    while frames < 2 and at < len(data) and data[at] != _GIF_END:
        blocks += 1
        if data[at] == _GIF_IMAGE:
            frames += 1
            _check_gif_frame(data, at, max_pixels)
            at, blocks = _skip_gif_blocks(data, at + 11 + _gif_palette_bytes(data, at + 9), blocks)
        elif data[at] == _GIF_EXTENSION:
            at, blocks = _skip_gif_blocks(data, at + 2, blocks)
        else:
            at += 1  # as Pillow does
        if blocks > _MAX_GIF_BLOCKS:
            raise ImageSuspiciousError("a GIF of too many blocks")


def _check_gif_frame(data: bytes, at: int, max_pixels: int) -> None:
    """Refuse a frame that reaches too far: Pillow may fill its area before it tells its size."""
    if at + 9 <= len(data):
        left, top, width, height = struct.unpack_from("<4H", data, at + 1)
        if (left + width) * (top + height) > max_pixels:
            raise ImageTooLargeError(f"more than {max_pixels} pixels")


def _gif_palette_bytes(data: bytes, flags_at: int) -> int:
    flags = data[flags_at] if flags_at < len(data) else 0
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _skip_gif_blocks(data: bytes, at: int, blocks: int) -> tuple[int, int]:
    """Skip a chain of sub-blocks: -> where it ends, and the number of blocks seen by then."""
    while at < len(data) and data[at] and blocks <= _MAX_GIF_BLOCKS:
        at += 1 + data[at]
        blocks += 1
    return at + 1, blocks


def _check_bmp(data: bytes) -> None:
    """Bound what Pillow's run-length decoder does, which is written in Python."""
    if int.from_bytes(data[14:18], "little") < 40:  # a header without compression
        return
    width, height, compression = (
        int.from_bytes(data[at : at + 4], "little", signed=True) for at in (18, 22, 30)
    )
    if compression not in _RUN_LENGTH_CODED:
        return
    if len(data) > _MAX_RUN_LENGTH_BYTES or abs(width * height) > _MAX_RUN_LENGTH_PIXELS:
        raise ImageSuspiciousError("a run-length coded BMP of this size")
