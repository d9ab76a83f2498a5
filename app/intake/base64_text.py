"""Image bytes that arrive as base64 text, bare or in a data URI.

Libraries write it in lines, with the alphabet for URLs, or without padding. Each of these has one
meaning, and is taken.
"""

import binascii
import string
from typing import NamedTuple

import pybase64

from app.errors import ImageTooLargeError, InvalidBase64Error

_MAX_DATA_URI_HEADER = 256
_WHITESPACE = b" \t\r\n\f\v"
_TO_STANDARD_ALPHABET = bytes.maketrans(b"-_", b"+/")
_MEANT = (string.ascii_letters + string.digits + "+/-_=").encode() + _WHITESPACE
# Line ends are a thirtieth of a text. What is over the limit by more need not be copied to tell.
_MAX_SPREAD = 9 / 8


class _Located(NamedTuple):
    """Base64 text, and how many characters of what the client sent are in front of it."""

    text: str
    offset: int


def decode_base64(text: str, max_bytes: int) -> bytes:
    """Return the bytes behind base64 or a base64 data URI.

    Raises `InvalidBase64Error`, or `ImageTooLargeError` before decoding more than `max_bytes`.
    """
    located = _without_header(text)
    most_characters = 4 * (max_bytes + 2) / 3 + 1  # padding may stand for two of the bytes
    if len(located.text) > _MAX_SPREAD * most_characters:
        raise _too_large(max_bytes)
    if len(located.text) < most_characters:
        try:
            return pybase64.b64decode(located.text, validate=True)
        except (binascii.Error, ValueError):
            pass  # written in another way, or none
    return _decode_any_writing(located, max_bytes)


def _without_header(text: str) -> _Located:
    """Cut off a data URI's header; its words may be in any case (RFC 3986, RFC 2397)."""
    start = text[:_MAX_DATA_URI_HEADER].lstrip()
    if start[:5].lower() != "data:":
        return _Located(text, 0)
    end = text.find(",", 0, _MAX_DATA_URI_HEADER)
    if end < 0 or not "".join(text[:end].split()).lower().endswith(";base64"):
        raise InvalidBase64Error("the data URI is not of the form data:<type>;base64,<data>")
    return _Located(text[end + 1 :], end + 1)


def _decode_any_writing(located: _Located, max_bytes: int) -> bytes:
    try:
        data = located.text.encode("ascii")
    except UnicodeEncodeError as error:
        raise _not_base64(located.offset + error.start) from None
    standard = data.translate(_TO_STANDARD_ALPHABET, _WHITESPACE)
    padding = len(standard[-3:]) - len(standard[-3:].rstrip(b"="))
    length = len(standard) - padding
    if length * 3 // 4 > max_bytes:
        raise _too_large(max_bytes)
    missing = -length % 4 - padding
    try:
        return pybase64.b64decode(standard + missing * b"=", validate=True)
    except (binascii.Error, ValueError):
        raise _not_base64(located.offset + _first_wrong(data)) from None


def _first_wrong(data: bytes) -> int:
    """Return where text that cannot be decoded ceases to be base64."""
    foreign = data.translate(None, _MEANT)
    if foreign:
        return data.index(foreign[0])
    end = len(data.rstrip(_WHITESPACE + b"="))
    padding = data.find(b"=", 0, end)
    if padding >= 0:  # and more behind it
        return padding
    length = len(data[:end].translate(None, _WHITESPACE))
    if length % 4 == 1:  # six bits are no byte
        return end - 1
    padding = end - 1
    for _ in range(-length % 4 + 1):
        padding = data.index(b"=", padding + 1)
    return padding


def _not_base64(index: int) -> InvalidBase64Error:
    return InvalidBase64Error(
        f"the data is not base64: character {index + 1} (index {index}) does not belong there"
    )


def _too_large(max_bytes: int) -> ImageTooLargeError:
    return ImageTooLargeError(f"more than {max_bytes} bytes (SIGLIP_MAX_IMAGE_BYTES)")
