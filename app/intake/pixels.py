"""Pixels of any mode to 8 bits on white, grey or RGB, in small steps."""

from collections.abc import Callable
from types import MappingProxyType

from PIL import Image, ImageChops

Step = Callable[[Image.Image, list[str]], Image.Image]

_WITHOUT_COLOUR = MappingProxyType({"1": "L", "L": "L"})
# What they are without, where nothing shows through.
_WITH_ALPHA = MappingProxyType({"LA": "L", "RGBA": "RGB"})


def to_grey_or_rgb(image: Image.Image, noted: list[str]) -> Image.Image:
    """Convert a loaded image: -> L where it has no colour and no transparency, else RGB.

    Grey that is resized before it becomes RGB gives the same pixels for half the work.
    What had to be done is added to `noted` as warning codes.
    """
    for step in _STEPS:
        image = step(image, noted)
    return image


def _scale_16_bit(image: Image.Image, noted: list[str]) -> Image.Image:
    """Map 0..65535 to 0..255; Pillow's own conversion would clip at 255."""
    if not image.mode.startswith("I"):
        return image
    noted.append("grey_16bit_scaled")
    # Linear, so Pillow computes it without a copy in a wider type.
    grey = image.point(lambda value: value * (1 / 257) + 0.5).convert("L")
    clear_value = image.info.get("transparency")
    if clear_value is None:
        return grey
    return Image.merge("LA", (grey, _opacity(image, clear_value)))


def _opacity(image: Image.Image, clear_value: int) -> Image.Image:
    """Return 0 where a value is the clear one, else 255."""
    wide = image.convert("I")
    above = wide.point(lambda value: value * 1 - clear_value).convert("L")  # clips at 0 and 255
    below = wide.point(lambda value: value * -1 + clear_value).convert("L")
    return ImageChops.lighter(above, below).point(lambda value: 255 if value else 0)


def _flatten_alpha(image: Image.Image, noted: list[str]) -> Image.Image:
    """Composite transparency on white, as the reference processor does."""
    if not image.has_transparency_data:
        return image
    if image.mode not in _WITH_ALPHA:
        image = image.convert("RGBA")
    if image.getchannel("A").getextrema() == (255, 255):
        return image.convert(_WITH_ALPHA[image.mode])
    noted.append("alpha_flattened")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)


def _drop_other_modes(image: Image.Image, _noted: list[str]) -> Image.Image:
    mode = _WITHOUT_COLOUR.get(image.mode, "RGB")
    return image if image.mode == mode else image.convert(mode)


_STEPS: tuple[Step, ...] = (_scale_16_bit, _flatten_alpha, _drop_other_modes)
