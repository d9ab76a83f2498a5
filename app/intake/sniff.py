"""What image format bytes are in, told by their first bytes and never by a name or header."""

from app.errors import UnsupportedImageFormatError
from app.intake.foreign import name_foreign_format
from app.intake.formats import FORMATS


def sniff_format(data: bytes, allowed: frozenset[str]) -> str:
    """Return the format (`jpeg`, `png`, ...) of encoded image bytes.

    Raises `UnsupportedImageFormatError` for anything not in `allowed`.
    """
    if not data:
        raise UnsupportedImageFormatError("the image is empty")
    found = known_format(data)
    if found in allowed:
        return found
    readable = ", ".join(sorted(allowed)).upper()
    if found is not None:
        raise UnsupportedImageFormatError(
            f"this is {found.upper()}: convert it, or allow it by SIGLIP_FORMATS;"
            f" accepted here: {readable}"
        )
    if name := name_foreign_format(data):
        raise UnsupportedImageFormatError(
            f"this is {name}: convert it to an image; accepted here: {readable}"
        )
    raise UnsupportedImageFormatError(f"these bytes are no image of a known format ({readable})")


def known_format(data: bytes) -> str | None:
    """Return the format that first bytes belong to, whether it is allowed or not."""
    return next((name for name, kind in FORMATS.items() if kind.signature.match(data)), None)
