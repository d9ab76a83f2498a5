"""What the demonstration shows: pictures, and queries in words."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import skimage.data
from PIL import Image, ImageOps

from examples.shapes.drawing import draw_image
from examples.shapes.world import Scene, Thing


@dataclass(frozen=True)
class Picture:
    """An image as a person would upload it, and its subject: several pictures may share one."""

    name: str
    subject: str
    jpeg: bytes


@dataclass(frozen=True)
class Gallery:
    """Pictures, and queries with the subject that answers each."""

    pictures: tuple[Picture, ...]
    queries: dict[str, str]


# Public domain or CC0, shipped with scikit-image.
_PHOTOGRAPHED = {
    "an astronaut in an orange suit": "astronaut",
    "a cat": "chelsea",
    "a cup of coffee": "coffee",
    "a rocket on its launch pad": "rocket",
}

# Two of them differ only in which thing has which colour.
_SCENES = {
    "red-blue": Scene(
        Thing("small", "red", "circle"), "left of", Thing("large", "blue", "square"), "white"
    ),
    "blue-red": Scene(
        Thing("small", "blue", "circle"), "left of", Thing("large", "red", "square"), "white"
    ),
    "star": Scene(
        Thing("large", "yellow", "star"), "above", Thing("small", "green", "ring"), "black"
    ),
    "purple": Scene(Thing("large", "purple", "cross"), ground="pink"),
}
_DRAWN = {
    "a red circle left of a blue square": "red-blue",
    "a blue circle left of a red square": "blue-red",
    "a star above a ring": "star",
    "a purple shape": "purple",
}


def hang_photographs() -> Gallery:
    """Return four photographs, each with a crop and its mirror image."""
    pictures = [
        Picture(name, subject, as_jpeg(image))
        for subject in _PHOTOGRAPHED.values()
        for name, image in _vary_photograph(subject)
    ]
    return Gallery(tuple(pictures), _PHOTOGRAPHED)


def hang_drawings() -> Gallery:
    """Return four scenes, each drawn three times, never twice in the same place or colour."""
    random = np.random.default_rng(7)
    pictures = [
        Picture(f"{subject} {number}", subject, as_jpeg(draw_image(scene, random, 320)))
        for subject, scene in _SCENES.items()
        for number in (1, 2, 3)
    ]
    return Gallery(tuple(pictures), _DRAWN)


def as_jpeg(image: Image.Image) -> bytes:
    """Encode an image as a person would upload it."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92)
    return file.getvalue()


def _vary_photograph(name: str) -> Iterator[tuple[str, Image.Image]]:
    photograph = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
    width, height = photograph.size
    yield name, photograph
    yield f"{name}, crop", photograph.crop((width // 16, height // 16, width - width // 16, height))
    yield f"{name}, mirror", ImageOps.mirror(photograph)
