"""What is left of an image file when only what its pixels need is kept.

A checker that reads a file otherwise than its decoder lets pass what it did not see. So a file is
not only checked: each format's walker goes through it as the decoder does and writes it anew, every
part with its right length and in its usual place. The decoder gets that, and finds nothing in it
that was not counted.
"""

from dataclasses import dataclass

from PIL import Image

from app.errors import ImageTruncatedError, ImageUndecodableError

# A JPEG has room for no more. PNG and WebP have, and an orientation may be of any type: as millions
# of fractions it takes Pillow seconds and 600 MB.
MAX_EXIF_BYTES = 64 * 2**10


@dataclass(frozen=True)
class Outline:
    """A rebuilt file, and what else the original told: metadata that may hold an orientation.

    `exif` is the beginning of a TIFF structure, with or without `Exif` in front; `orientation` is
    told where the format itself has one, as 1 to 8; `animated` says whether there is a second frame
    or page. The rebuilt file has none of these. `size` (width, height) is
    told where Pillow takes an image's memory in order to tell it, `transparent` where it would not.
    """

    data: bytes
    exif: bytes | None = None
    xmp: bytes | memoryview | None = None
    orientation: int | None = None
    animated: bool = False
    size: tuple[int, int] | None = None
    transparent: bool = False

    def check_size(self, size: tuple[int, int]) -> None:
        """Refuse a file that costs too much, or cannot be what it claims, at `size` in pixels.

        Raises `ImageSuspiciousError`.
        """

    def correct(self, image: Image.Image) -> Image.Image:
        """Return the decoded image, as its format has it where Pillow has something else."""
        return image


def truncated(format_name: str) -> ImageTruncatedError:
    """Return the error for a file whose end is missing."""
    return ImageTruncatedError(f"the {format_name} ends early")


def undecodable(format_name: str) -> ImageUndecodableError:
    """Return the error for a file that its decoder does not read."""
    return ImageUndecodableError(f"the {format_name} cannot be decoded")
