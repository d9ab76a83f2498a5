"""Pixels of any mode to 8-bit RGB on white, in small steps."""

from collections.abc import Callable

from PIL import Image, ImageChops

Step = Callable[[Image.Image, list[str]], Image.Image]


def to_rgb(image: Image.Image, noted: list[str]) -> Image.Image:
    """Convert a loaded image; what had to be done is added to `noted` as warning codes."""
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
    rgba = image.convert("RGBA")
    if rgba.getchannel("A").getextrema() != (255, 255):
        noted.append("alpha_flattened")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)


def _convert_to_rgb(image: Image.Image, _noted: list[str]) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


_STEPS: tuple[Step, ...] = (_scale_16_bit, _flatten_alpha, _convert_to_rgb)
