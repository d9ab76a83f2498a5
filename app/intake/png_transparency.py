"""The one transparent value of a PNG without alpha, compared at the depth of its samples.

PNG specification, 11.3.2.1: only a pixel of exactly that value is clear, and of samples of fewer
than 16 bits the least significant bits of the value count. Pillow compares it, as it is, with 8
bits that it has made of 1, 2, 4 or 16.
"""

from dataclasses import dataclass
from io import BytesIO

from PIL import Image, ImageChops

from app.intake.outline import Outline

_GREY, _COLOUR = 0, 2
_SAMPLES = {_GREY: 1, _COLOUR: 3}
_DEEP = 16
# Pillow's name for the second byte of each sample of 16 bits; it takes the first by itself.
_LOW_BYTES = "RGB;16L"


def clear_samples(header: bytes, transparency: bytes) -> bytes | None:
    """Return what is to stand in a tRNS for Pillow to compare it rightly with samples of 8 bits.

    `header` and `transparency` are the contents of IHDR and tRNS. None is what libpng and browsers
    make of one that is too short. What the palette has stays as it is, and 16 bits too.
    """
    depth, colour_type = header[8:10]
    count = _SAMPLES.get(colour_type)
    if count is None:
        return transparency
    if len(transparency) < 2 * count:
        return None
    if depth >= _DEEP:
        return transparency[: 2 * count]
    most = 2**depth - 1
    scale = 255 // most if most else 0
    return b"".join(
        bytes((0, (transparency[2 * sample + 1] & most) * scale)) for sample in range(count)
    )


def is_deep_colour(header: bytes) -> bool:
    """Tell whether there are colours of 16 bits a sample, of which Pillow keeps eight."""
    return header[8:10] == bytes((_DEEP, _COLOUR))


@dataclass(frozen=True)
class DeepClearOutline(Outline):
    """A PNG of 16 bits a sample, and the colour that is `clear` in it: six bytes.

    Its file does not tell that colour, which Pillow would compare with half of each sample.
    """

    clear: bytes = bytes(6)

    def correct(self, image: Image.Image) -> Image.Image:
        """Give it alpha, for which the other half of each sample is decoded too."""
        opaque = _differing(image, self.clear[::2])
        with Image.open(BytesIO(self.data), formats=("PNG",)) as other:
            other.tile = [tile._replace(args=_LOW_BYTES) for tile in other.tile]
            opaque = ImageChops.lighter(opaque, _differing(other, self.clear[1::2]))
        image.putalpha(opaque)
        return image


def _differing(image: Image.Image, colour: bytes) -> Image.Image:
    """Return 255 where an RGB image has another colour, else 0."""
    masks = (
        band.point([0 if value == wanted else 255 for value in range(256)])
        for band, wanted in zip(image.split(), colour, strict=True)
    )
    return _lightest(*masks)


def _lightest(*masks: Image.Image) -> Image.Image:
    lightest, *others = masks
    for mask in others:
        lightest = ImageChops.lighter(lightest, mask)
    return lightest
