"""What a JPEG's bytes give away before it is decoded: how much work, and whether it is a lie.

A progressive JPEG may repeat its scans at will, each of which costs libjpeg a pass over the whole
image; and libjpeg fills up what is missing, so that a few bytes may claim any size.
"""

from app.errors import ImageSuspiciousError

_MAX_SCANS = 100
_MAX_SCANNED_PIXELS = 2_000_000_000

_START_OF_SCAN = 0xDA
_ARITHMETIC_FRAMES = (0xC9, 0xCA, 0xCB)
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xDA))


def check_jpeg(data: bytes, size: tuple[int, int]) -> None:
    """Refuse a JPEG of `size` (width, height) that would cost too much or cannot be what it claims.

    Raises `ImageSuspiciousError`.
    """
    scans_at, arithmetic = _find_scans(data)
    scans = data.count(b"\xff\xda", scans_at)
    width, height = size
    if scans > _MAX_SCANS or scans * width * height > _MAX_SCANNED_PIXELS:
        raise ImageSuspiciousError(f"a JPEG of {scans} scans at this size")
    # Huffman coding spends at least one bit on each block of 8 x 8 pixels.
    blocks = -(-width // 8) * -(-height // 8)
    if not arithmetic and 8 * len(data) < blocks:
        raise ImageSuspiciousError("the JPEG is too short for the size it claims")


def _find_scans(data: bytes) -> tuple[int, bool]:
    """Walk the segments: -> where the first scan starts, and whether coding is arithmetic.

    Segments may hold a thumbnail, whose scans are not the image's.
    """
    at, arithmetic = 2, False
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        arithmetic = arithmetic or marker in _ARITHMETIC_FRAMES
        if marker == _START_OF_SCAN:
            return at, arithmetic
        if marker == 0xFF:  # padding
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at, arithmetic
