"""From a scene to an image: anti-aliased shapes, never twice in quite the same place or colour."""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from examples.shapes.world import COLOURS, GROUNDS, Colour, Scene, Thing

Pixels = NDArray[np.uint8]

# In shares of the image's side: diameters, how far places are from the middle, and how far what is
# there may be from its place.
_DIAMETERS = {"small": (0.21, 0.24), "large": (0.38, 0.42)}
_STEP, _STRAY = 0.25, 0.03
_FINER = 8  # masks are drawn so much larger, then averaged


def draw_image(scene: Scene, random: np.random.Generator, side: int = 224) -> Image.Image:
    """Draw a scene as a square RGB image of `side` pixels."""
    return Image.fromarray(draw_pixels(scene, random, side))


def draw_pixels(scene: Scene, random: np.random.Generator, side: int) -> Pixels:
    """Draw a scene: -> (side, side, 3)."""
    assert scene.ground is not None  # noqa: S101 # a scene says all
    pixels = np.empty((side, side, 3), np.float32)
    pixels[:] = _vary(GROUNDS[scene.ground], random)
    for thing, centre in zip((scene.thing, scene.other), _place(scene, random), strict=False):
        if thing is not None:
            _paint(pixels, thing, centre, random)
    pixels += 2 * random.standard_normal(pixels.shape, np.float32)
    return pixels.clip(0, 255).astype(np.uint8)


def _place(scene: Scene, random: np.random.Generator) -> NDArray[np.float64]:
    """Return the centres of the things, (things, 2), x and y in shares of the side."""
    if scene.relation is None:
        steps = random.integers(-1, 2, (1, 2)).astype(float)  # one of nine places
    else:
        apart = np.array((-1.0, 1.0) if scene.relation in ("left of", "above") else (1.0, -1.0))
        is_level = scene.relation.endswith("of")
        steps = np.stack((apart, 0 * apart) if is_level else (0 * apart, apart), axis=1)
    return 0.5 + _STEP * steps + random.uniform(-_STRAY, _STRAY, steps.shape)


def _paint(
    pixels: NDArray[np.float32],
    thing: Thing,
    centre: NDArray[np.float64],
    random: np.random.Generator,
) -> None:
    side = len(pixels)
    assert thing.size and thing.colour and thing.shape  # noqa: S101, PT018 # a scene says all
    diameter = round(random.uniform(*_DIAMETERS[thing.size]) * side)
    cover = _mask(thing.shape, diameter)[:, :, None]
    left, top = (np.round(centre * side - diameter / 2)).astype(int)
    under = pixels[top : top + diameter, left : left + diameter]
    under += cover * (_vary(COLOURS[thing.colour], random) - under)


def _vary(colour: Colour, random: np.random.Generator) -> NDArray[np.float32]:
    return (np.array(colour) + random.uniform(-10, 10, 3)).astype(np.float32)


@cache
def _mask(shape: str, diameter: int) -> NDArray[np.float32]:
    """Return how much of each pixel a shape covers, 0 to 1: (diameter, diameter)."""
    side = diameter * _FINER
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    whole = (0, 0, side - 1, side - 1)
    if shape == "circle":
        draw.ellipse(whole, 255)
    elif shape == "ring":
        draw.ellipse(whole, 255)
        draw.ellipse((side * 0.27, side * 0.27, side * 0.73, side * 0.73), 0)
    elif shape == "square":
        draw.rectangle((side * 0.06, side * 0.06, side * 0.94, side * 0.94), 255)
    elif shape == "triangle":
        draw.polygon(((side / 2, side * 0.03), (side, side * 0.93), (0, side * 0.93)), 255)
    elif shape == "cross":
        draw.rectangle((side * 0.35, 0, side * 0.65, side), 255)
        draw.rectangle((0, side * 0.35, side, side * 0.65), 255)
    else:
        draw.polygon(_star(side), 255)
    return np.asarray(mask.reduce(_FINER), np.float32) / np.float32(255)


def _star(side: int) -> list[tuple[float, float]]:
    """Return the corners of a star of five points that fills a square of `side`."""
    angles = np.arange(10) * np.pi / 5 - np.pi / 2
    radii = side / 2 * np.where(np.arange(10) % 2, 0.42, 1.0)
    return list(
        zip(side / 2 + radii * np.cos(angles), side / 2 + radii * np.sin(angles), strict=True)
    )
