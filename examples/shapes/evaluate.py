"""How well a model knows the world of this folder: `python -m examples.shapes.evaluate`.

With `--url http://localhost:8000` it asks a running service instead of loading the checkpoint.
"""

import argparse
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import httpx
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from examples.client import embed_images
from examples.shapes.checkpoint import FOLDER
from examples.shapes.drawing import draw_image
from examples.shapes.world import (
    COLOURS,
    GROUNDS,
    OPPOSITES,
    SHAPES,
    SIZES,
    Rows,
    Scene,
    Thing,
    draw_scene,
    holds,
)
from model import SiglipImageProcessor, SiglipModel, load_tokenizer

SEED = 1_000_000  # training draws from another
DRAWINGS = 400

Vectors = NDArray[np.float32]


class Encoder(Protocol):
    """Whatever turns images and texts into vectors of length 1, (n, dim)."""

    def embed_images(self, images: list[Image.Image]) -> Vectors: ...  # noqa: D102 # see above
    def embed_texts(self, texts: list[str]) -> Vectors: ...  # noqa: D102


class Checkpoint:
    """The model in a folder, in float32."""

    def __init__(self, folder: Path) -> None:
        self._model = SiglipModel.from_pretrained(folder, dtype="float32")
        self._processor = SiglipImageProcessor.from_pretrained(folder)
        self._tokenizer = load_tokenizer(folder)

    def embed_images(self, images: list[Image.Image]) -> Vectors:
        """Embed RGB images of any size."""
        with torch.inference_mode():
            pixel_values = self._processor(images)["pixel_values"]
            return _normalize(self._model.get_image_features(pixel_values).numpy())

    def embed_texts(self, texts: list[str]) -> Vectors:
        """Embed texts."""
        with torch.inference_mode():
            return _normalize(self._model.get_text_features(self._tokenizer(texts)).numpy())


class Service:
    """A running service."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def embed_images(self, images: list[Image.Image]) -> Vectors:
        """Embed images, sent as PNG."""
        return np.array(embed_images(self._client, map(as_png, images)), np.float32)

    def embed_texts(self, texts: list[str]) -> Vectors:
        """Embed texts."""
        answer = self._client.post("/embed/text", json={"texts": texts}).raise_for_status()
        return np.array([item["embedding"] for item in answer.json()["data"]], np.float32)


@dataclass(frozen=True)
class Drawings:
    """Drawn scenes, what is in them, and their vectors."""

    scenes: list[Scene]
    rows: Rows
    vectors: Vectors


def main() -> None:
    """Print every figure, and what is most often taken for something else."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=FOLDER)
    parser.add_argument("--url", help="ask this service")
    arguments = parser.parse_args()
    if arguments.url:
        with httpx.Client(base_url=arguments.url, timeout=120) as client:
            report(Service(client))
    else:
        report(Checkpoint(arguments.checkpoint))


def report(encoder: Encoder) -> None:
    """Print what `measure` finds."""
    figures, errors = measure(encoder)
    for name, share in figures.items():
        print(f"{name:32} {share:.3f}")
    for (truth, said), times in errors.most_common(5):
        print(f"{times:3} x {truth} taken for {said}")


def measure(
    encoder: Encoder, drawings: int = DRAWINGS
) -> tuple[dict[str, float], Counter[tuple[str, str]]]:
    """Return the share of right answers to each question, and which things were confused.

    Each question is asked of so many drawings, all from a seed that training has not seen.
    """
    random = np.random.default_rng(SEED)
    single = draw(encoder, [draw_scene(random, 1) for _ in range(drawings)], random)
    double = draw(encoder, [draw_scene(random, 2) for _ in range(drawings)], random)
    either = draw(encoder, [draw_scene(random) for _ in range(drawings)], random)
    things = [Scene(Thing(*words)) for words in _every_thing()]
    coloured = [Scene(Thing(None, colour, shape)) for colour in COLOURS for shape in SHAPES]
    figures = {
        "which shape, of 6": choose(encoder, single, [Scene(Thing(shape=w)) for w in SHAPES]),
        "which colour, of 8": choose(encoder, single, [Scene(Thing(colour=w)) for w in COLOURS]),
        "which size, of 2": choose(encoder, single, [Scene(Thing(w)) for w in SIZES]),
        "which ground, of 5": choose(encoder, single, [Scene(Thing(), ground=w) for w in GROUNDS]),
        f"which thing, of {len(things)}": choose(encoder, single, things),
        "which relation, of 4": choose_relation(encoder, double),
        f"which of two things, of {len(coloured)}": choose(encoder, double, coloured),
        f"text to image recall@1 of {drawings}": retrieve(encoder, either, images_for_text=True),
        f"image to text recall@1 of {drawings}": retrieve(encoder, either, images_for_text=False),
    }
    return figures, find_confusions(encoder, single, things)


def draw(encoder: Encoder, scenes: list[Scene], random: np.random.Generator) -> Drawings:
    """Draw scenes and embed the drawings."""
    images = [draw_image(scene, random) for scene in scenes]
    return Drawings(scenes, _rows(scenes), encoder.embed_images(images))


def choose(encoder: Encoder, drawings: Drawings, labels: list[Scene]) -> float:
    """Return how often the nearest of the labels is true of a drawing (zero-shot)."""
    best = _nearest_labels(encoder, drawings, labels)
    return float(holds(_rows(labels), drawings.rows)[best, np.arange(len(best))].mean())


def choose_relation(encoder: Encoder, drawings: Drawings) -> float:
    """Return how often the nearest of four sentences names how two things stand to each other."""
    asked = [scene for scene in drawings.scenes if scene.thing != scene.other]
    labels = [replace(scene, relation=word, ground=None) for scene in asked for word in OPPOSITES]
    texts = _embed_texts(encoder, labels).reshape(len(asked), len(OPPOSITES), -1)
    kept = np.array([scene.thing != scene.other for scene in drawings.scenes])
    best = np.einsum("ntd,nd->nt", texts, drawings.vectors[kept]).argmax(1)
    right = [list(OPPOSITES)[i] == scene.relation for i, scene in zip(best, asked, strict=True)]
    return float(np.mean(right))


def retrieve(encoder: Encoder, drawings: Drawings, *, images_for_text: bool) -> float:
    """Return how often the nearest drawing fits its full description, or the other way round."""
    texts = _embed_texts(encoder, drawings.scenes)
    truth = holds(drawings.rows, drawings.rows)  # (texts, drawings)
    cosines = texts @ drawings.vectors.T
    if not images_for_text:
        cosines, truth = cosines.T, truth.T
    return float(truth[np.arange(len(truth)), cosines.argmax(1)].mean())


def find_confusions(
    encoder: Encoder, drawings: Drawings, labels: list[Scene]
) -> Counter[tuple[str, str]]:
    """Count which thing was taken for which other."""
    best = _nearest_labels(encoder, drawings, labels)
    pairs = zip((str(scene.thing) for scene in drawings.scenes), best, strict=True)
    said = [(truth, str(labels[i])) for truth, i in pairs]
    return Counter((truth, answer) for truth, answer in said if truth != answer)


def as_png(image: Image.Image) -> bytes:
    """Encode an image without loss."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _nearest_labels(encoder: Encoder, drawings: Drawings, labels: list[Scene]) -> NDArray[np.int64]:
    cosines: Vectors = drawings.vectors @ _embed_texts(encoder, labels).T
    best: NDArray[np.int64] = cosines.argmax(1)
    return best


def _embed_texts(encoder: Encoder, descriptions: Sequence[Scene]) -> Vectors:
    texts = [str(description) for description in descriptions]
    parts = [encoder.embed_texts(texts[i : i + 200]) for i in range(0, len(texts), 200)]
    return np.concatenate(parts)


def _every_thing() -> list[tuple[str, str, str]]:
    return [(size, colour, shape) for size in SIZES for colour in COLOURS for shape in SHAPES]


def _rows(descriptions: Sequence[Scene]) -> Rows:
    return np.array([description.encode() for description in descriptions], np.int8)


def _normalize(vectors: Vectors) -> Vectors:
    normalized: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normalized


if __name__ == "__main__":
    main()
