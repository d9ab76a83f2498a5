"""What image format bytes are in, told by their first bytes and never by a name or header."""

from app.errors import UnsupportedImageFormatError
from app.intake.formats import FORMATS

# Known by name only, so that the refusal can say what was sent.
_FOREIGN: tuple[tuple[int, bytes, str], ...] = (
    (0, b"II*\x00", "TIFF"),
    (0, b"MM\x00*", "TIFF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "XML"),
    (0, b"<!DOCTYPE", "HTML"),
    (0, b"<html", "HTML"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"PK\x03\x04", "ZIP"),
)


def sniff_format(data: bytes, allowed: frozenset[str]) -> str:
    """Return the format (`jpeg`, `png`, ...) of encoded image bytes.

    Raises `UnsupportedImageFormatError` for anything not in `allowed`.
    """
    if not data:
        raise UnsupportedImageFormatError("the image is empty")
    found = _known_format(data)
    if found in allowed:
        return found
    readable = ", ".join(sorted(allowed)).upper()
    if found is not None:
        raise UnsupportedImageFormatError(f"{found.upper()} is not accepted here, only {readable}")
    for offset, signature, name in _FOREIGN:
        if data.startswith(signature, offset):
            raise UnsupportedImageFormatError(f"{name} is not accepted, only {readable}")
    raise UnsupportedImageFormatError(f"these bytes are no image of a known format ({readable})")


def _known_format(data: bytes) -> str | None:
    return next((name for name, kind in FORMATS.items() if kind.signature.match(data)), None)
