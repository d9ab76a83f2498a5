"""The one fake: an Embedder whose vectors are colours, and which fails on demand.

Images of one colour give a vector that tells the colour, so a test sees whose vector it holds. Some
shades of red make it fail.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from PIL import Image

from app.engine.protocol import (
    DeviceLostError,
    DeviceOutOfMemoryError,
    Float32Array,
    ModelInfo,
    Pixels,
    UInt8Array,
    Vectors,
)

FAILS_TO_BEGIN = 200
RAISES = 201
GIVES_NAN = 202
GIVES_INFINITE_PATCH = 203
ENDS_THREAD = 204
GIVES_ZERO = 205
GIVES_HUGE = 206
LOSES_A_ROW = 207
RESIZE_RAISES = 208
RESIZES_WRONG = 209
GIVES_NAN_BUT_IN_FLOAT32 = 210
LOSES_DEVICE = 211
"""Values of the red channel that make the fake fail."""

SIDE = 4
SPACE = "fake:0123456789ab"
_WAIT_S = 30


@dataclass(frozen=True)
class SeenBatch:
    """One batch: the colours of its images, and of how many patches were asked for."""

    colours: list[tuple[int, int, int]]
    patches_of: int


@dataclass
class FakeEmbedder:
    """Vectors are (red, green, blue, 1); each of the 4 patches is its own mean colour and 2.

    While `gate` is closed, whoever waits for a batch waits in it; `entered` counts the batches that
    have begun.
    """

    pretrained: bool = True
    memory_images: int | None = None
    """How many images of all begun batches fit on the device; None is any number."""
    batches_in_flight: int = 1
    max_batch_size: int = 8
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    batches: list[SeenBatch] = field(default_factory=list)
    resized: int = 0
    entered_in: list[str] = field(default_factory=list)
    """Names of the threads that were to be made ready."""
    _images_on_device: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(
            model="fake/colours",
            revision="0" * 40,
            space=SPACE,
            dim=4,
            image_size=SIDE,
            patch_size=SIDE // 2,
            max_patches=4,
            device="cpu",
            dtype="float32",
            pretrained=self.pretrained,
            max_batch_size=self.max_batch_size,
            selftest_cosine=0.99987,
        )

    @property
    def computed(self) -> list[tuple[int, int, int]]:
        """The colours of all images that were computed, in order."""
        return [colour for batch in self.batches for colour in batch.colours]

    def enter_thread(self) -> None:
        self.entered_in.append(threading.current_thread().name)

    def resize(self, image: Image.Image) -> UInt8Array:
        self.resized += 1
        pixels = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.NEAREST))
        if pixels[0, 0, 0] == RESIZE_RAISES:
            raise RuntimeError("resize failed")
        return pixels[1:] if pixels[0, 0, 0] == RESIZES_WRONG else pixels

    @property
    def resizer(self) -> "FakeEmbedder":
        return self

    def pillow_resize(self, _size: tuple[int, int]) -> None:
        return None

    def begin(self, pixels: Pixels, patches_of: int = 0) -> Callable[[], Vectors]:
        pixels = np.asarray(pixels)
        colours = [(int(row[0, 0, 0]), int(row[0, 0, 1]), int(row[0, 0, 2])) for row in pixels]
        self.entered.release()
        if any(red == FAILS_TO_BEGIN for red, _, _ in colours):
            raise RuntimeError("begin failed")
        batch, images = SeenBatch(colours, patches_of), self._images_on_device + len(pixels)
        if self.memory_images is not None and images > self.memory_images:
            self.batches.append(batch)
            raise DeviceOutOfMemoryError
        self._images_on_device = images
        return partial(self._wait, pixels, batch)

    def _wait(self, pixels: UInt8Array, batch: SeenBatch) -> Vectors:
        assert self.gate.wait(_WAIT_S), "the gate stayed closed"
        self.batches.append(batch)
        self._images_on_device -= len(pixels)
        reds = np.array([red for red, _, _ in batch.colours])
        if ENDS_THREAD in reds:
            raise SystemExit
        if LOSES_DEVICE in reds:
            raise DeviceLostError
        if RAISES in reds:
            raise RuntimeError("embed failed")
        vectors = _colour_vectors(pixels, batch.patches_of)
        _spoil(vectors, reds)
        vectors.pooled[reds == GIVES_NAN_BUT_IN_FLOAT32, 0] = np.nan
        return Vectors(vectors.pooled[:-1], None) if LOSES_A_ROW in reds else vectors

    def embed(self, pixels: Pixels, patches: bool = False) -> Vectors:
        return self.begin(pixels, len(pixels) if patches else 0)()

    def embed_in_float32(self, pixels: Pixels, patches_of: int = 0) -> Vectors:
        pixels = np.asarray(pixels)
        vectors = _colour_vectors(pixels, patches_of)
        _spoil(vectors, pixels[:, 0, 0, 0])
        return vectors

    def wait_until_entered(self) -> None:
        """Wait until one more batch has begun."""
        assert self.entered.acquire(timeout=_WAIT_S), "no batch has begun"


class SoundImages(FakeEmbedder):
    """The fake for images that anybody may have made: no colour is a command."""

    def resize(self, image: Image.Image) -> UInt8Array:
        pixels: UInt8Array = np.minimum(np.asarray(image.resize((SIDE, SIDE))), FAILS_TO_BEGIN - 1)
        return pixels


class Headless(FakeEmbedder):
    """The fake as a model without pooling head."""

    @property
    def info(self) -> ModelInfo:
        return replace(super().info, pooled=False)


def expected_pooled(colour: tuple[int, int, int]) -> list[float]:
    """Return the raw pooled vector of an image of one colour."""
    return [*map(float, colour), 1.0]


def _colour_vectors(pixels: UInt8Array, patches_of: int) -> Vectors:
    batch = len(pixels)
    pooled = np.concatenate(
        [pixels.astype(np.float32).mean((1, 2)), np.ones((batch, 1), np.float32)], axis=1
    )
    half = SIDE // 2
    quarters = pixels.astype(np.float32).reshape(batch, 2, half, 2, half, 3).mean((2, 4))
    means: Float32Array = quarters.reshape(batch, 4, 3)
    marked = np.concatenate([means, np.full((batch, 4, 1), 2, np.float32)], axis=2)
    return Vectors(pooled.astype(np.float32), marked[:patches_of] if patches_of else None)


def _spoil(vectors: Vectors, reds: np.ndarray) -> None:
    vectors.pooled[reds == GIVES_NAN, 0] = np.nan
    vectors.pooled[reds == GIVES_ZERO] = 0
    vectors.pooled[reds == GIVES_HUGE] = 1e6
    if vectors.patches is not None:
        vectors.patches[reds[: len(vectors.patches)] == GIVES_INFINITE_PATCH, 3, 0] = np.inf
