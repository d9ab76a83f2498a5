"""Image bytes that arrive as base64 text, bare or in a data URI."""

import binascii

import pybase64

from app.errors import ImageTooLargeError, InvalidBase64Error

_MAX_DATA_URI_HEADER = 256


def decode_base64(text: str, max_bytes: int) -> bytes:
    """Return the bytes behind standard base64 or a base64 data URI.

    Raises `InvalidBase64Error`, or `ImageTooLargeError` before decoding more than `max_bytes`.
    """
    if text.startswith("data:"):
        end = text.find(",", 0, _MAX_DATA_URI_HEADER)
        if end < 0 or not text.endswith(";base64", 0, end):
            raise InvalidBase64Error("the data URI is not of the form data:<type>;base64,<data>")
        text = text[end + 1 :]
    if len(text) * 3 // 4 > max_bytes + 2:  # padding may stand for two of them
        raise ImageTooLargeError(f"more than {max_bytes} bytes")
    try:
        return pybase64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidBase64Error("the data is not valid base64") from error
