"""What a Content-Type says of a body, and what the body says where that is nothing.

Clients send a name of their own choice, one that their library falls back on, or none. An image is
told by its bytes, so it is taken under any name that promises nothing else. JSON is read only where
it is called so: a foreign page can send the other names without asking the browser's leave.
"""

from starlette.requests import Request

from app.errors import UnsupportedImageFormatError, UnsupportedMediaTypeError
from app.intake.formats import FORMATS
from app.intake.sniff import sniff_format

# Names of bytes of any kind; the second is what S3 says of them.
_BYTES = frozenset({"application/octet-stream", "binary/octet-stream"})
_ENCODED_FORM = (
    "application/x-www-form-urlencoded"  # by curl -d, and by libraries that know no better
)


def media_type_of(request: Request) -> str:
    """Return what a request says its body is, in lower case and without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_json(media_type: str) -> bool:
    """Whether a media type, in lower case, is one of JSON (RFC 6839 for the last)."""
    return media_type in ("application/json", "text/json") or media_type.endswith("+json")


def is_form(media_type: str) -> bool:
    """Whether a media type, in lower case, is that of a form with files."""
    return media_type == "multipart/form-data"


def refuse_what_is_no_image(body: bytes, media_type: str) -> None:
    """Refuse a body that nothing says is an image: neither its media type nor its first bytes.

    Raises `UnsupportedMediaTypeError`, which says what would do. A body that is called an image is
    left to the decoder, which knows more formats by name; and so is one that is called nothing.
    """
    if not body or media_type.startswith("image/") or media_type in _BYTES:
        return
    # No image is without a zero byte, but for one that went through curl -d.
    is_stripped = media_type == _ENCODED_FORM and b"\0" not in body
    if not is_stripped and is_image(body):
        return
    start = body[:64].lstrip()
    if start.startswith((b"{", b"[")):
        raise UnsupportedMediaTypeError("for JSON, send Content-Type: application/json")
    if start.startswith(b"--"):
        raise UnsupportedMediaTypeError(
            "for a form, send Content-Type: multipart/form-data with its boundary"
        )
    if start[:5].lower() == b"data:":
        raise UnsupportedMediaTypeError(
            'a data URI goes into JSON: Content-Type: application/json, {"images": ["data:..."]}'
        )
    if media_type == _ENCODED_FORM:
        raise UnsupportedMediaTypeError(
            f"{_ENCODED_FORM} is read only where the body is an image; curl -d strips bytes from a "
            "file: send it with --data-binary, or a form with -F"
        )
    if media_type:
        raise UnsupportedMediaTypeError(
            "send an image (image/* or application/octet-stream), multipart/form-data or "
            "application/json, and say which in Content-Type"
        )


def is_image(body: bytes) -> bool:
    """Whether a body is an image by its first bytes, in a format that may be allowed or not."""
    try:
        sniff_format(body, frozenset(FORMATS))
    except UnsupportedImageFormatError:
        return False
    return True
