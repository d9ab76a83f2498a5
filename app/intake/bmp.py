"""BMP: what is behind its pixels is left out, and what Pillow decodes in Python is bounded."""

from PIL import Image

from app.errors import ImageSuspiciousError
from app.intake.outline import Outline

_WITHOUT_COMPRESSION = 12  # bytes of the oldest header
_RUN_LENGTH_CODED = (1, 2)
_MAX_RUN_LENGTH_BYTES = 2 * 2**20
_MAX_RUN_LENGTH_PIXELS = 4_000_000
_MAX_PALETTE_BYTES = 4 * 2**16
_MASKS_BYTES = 16


class BmpOutline(Outline):
    """A BMP up to the end of its pixels."""

    def correct(self, image: Image.Image) -> Image.Image:
        """Drop alpha that is 0 everywhere, as browsers do.

        Who writes the fourth byte of a pixel as 0, as a clipboard does, means that there is none.
        """
        if image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
            return image.convert("RGB")
        return image


def outline_bmp(data: bytes, _max_pixels: int = 0) -> BmpOutline:
    """Cut a BMP behind its pixels; raises `ImageSuspiciousError`.

    Its decoder reads as many bytes as its header says, so that nothing has to be written anew.
    """
    header_bytes = _number(data, 14, 4)
    if header_bytes == _WITHOUT_COMPRESSION:
        width, height, bits = (_number(data, at, 2) for at in (18, 20, 24))
    else:
        width, height = (abs(_number(data, at, 4, signed=True)) for at in (18, 22))
        bits = _number(data, 28, 2)
        if _number(data, 30, 4) in _RUN_LENGTH_CODED:
            _check_run_length(data, width * height)
            return BmpOutline(data)
    # Pillow may find the pixels behind the palette although the header says where they begin.
    start = max(_number(data, 10, 4), 14 + header_bytes + _MASKS_BYTES) + _MAX_PALETTE_BYTES
    end = start + (width * bits + 31) // 32 * 4 * height
    return BmpOutline(data[:end])


def _check_run_length(data: bytes, pixels: int) -> None:
    if len(data) > _MAX_RUN_LENGTH_BYTES or pixels > _MAX_RUN_LENGTH_PIXELS:
        raise ImageSuspiciousError("a run-length coded BMP of this size")


def _number(data: bytes, at: int, size: int, *, signed: bool = False) -> int:
    return int.from_bytes(data[at : at + size], "little", signed=signed)
