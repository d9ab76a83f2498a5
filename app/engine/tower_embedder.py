"""A loaded model of any kind behind the engine: what resizes, what runs it, what it is held to."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Generic, Protocol, Self, TypeVar

import torch
from PIL import Image

from app.engine.batch_size import fit_batch_size, pick_max_batch_size
from app.engine.device import explain_device_errors
from app.engine.protocol import ModelInfo, Pixels, UInt8Array, UnevenVectors, Vectors
from app.engine.runner import Runner
from app.engine.selftest import check_against_reference
from app.intake.decode_process import PillowResize

Result = TypeVar("Result", Vectors, UnevenVectors)


class ImageProcessor(Protocol):
    """How images are brought to the model's input size; as the processors in model/ have it."""

    @property
    def resample(self) -> int:
        """Pillow's number of the filter."""
        ...

    @property
    def resizes_with_pillow(self) -> bool:
        """Whether `resize` is Pillow's."""
        ...

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width in pixels that `resize` gives."""
        ...

    def resize(self, image: Image.Image) -> UInt8Array:
        """Resize RGB pixels: -> uint8 (height, width, 3)."""
        ...


class TowerEmbedder(Generic[Result]):
    """A tower with its image processor; see `app.engine.protocol.Embedder`.

    `load_reference` reads the weights again, for a plain forward in float32 on the CPU.
    """

    def __init__(
        self,
        info: ModelInfo,
        processor: ImageProcessor,
        runner: Runner[Result],
        load_reference: Callable[[], Callable[[Pixels], Result]],
    ) -> None:
        self.info = info
        self._processor = processor
        self._runner: Runner[Result] = runner
        self._load_reference: Callable[[], Callable[[Pixels], Result]] = load_reference
        self._reference: Callable[[Pixels], Result] | None = None

    def make_ready(
        self,
        test_images: Sequence[UInt8Array],
        expected: Result,
        device: torch.device,
        max_batch_size: int | None,
    ) -> Self:
        """Warm up, find out the batch size, and test: `expected` is of the two test images.

        `info` tells the outcome. Raises `StartError`.
        """
        suitable = pick_max_batch_size(device, self.info.max_patches)
        size = fit_batch_size(self._runner, test_images[0], max_batch_size, suitable)
        cosine = check_against_reference(
            self.embed, test_images, expected, self._runner.test_sizes(size), self.info.dtype
        )
        self.info = replace(self.info, max_batch_size=size, selftest_cosine=cosine)
        return self

    def resize(self, image: Image.Image) -> UInt8Array:
        """Bring upright RGB pixels to the model's input: -> uint8 (height, width, 3)."""
        return self._processor.resize(image)

    def pillow_resize(self, size: tuple[int, int]) -> PillowResize | None:
        """Say how Pillow does the same with pixels of `size`, (width, height), if it does."""
        if not self._processor.resizes_with_pillow:
            return None
        height, width = self._processor.target_size(size[1], size[0])
        return PillowResize((width, height), self._processor.resample)

    @property
    def batches_in_flight(self) -> int:
        """How many batches to begin before waiting for the first."""
        return self._runner.batches_in_flight

    def begin(self, pixels: Pixels, patches: bool = False) -> Callable[[], Result]:
        """Begin a batch of what `resize` gave; call the result, once, for its vectors.

        Both raise `DeviceOutOfMemoryError` and `DeviceLostError`.
        """
        with explain_device_errors():
            return explain_device_errors()(self._runner.begin(pixels, patches))

    def embed(self, pixels: Pixels, patches: bool = False) -> Result:
        """Compute the vectors of a batch: uint8 (batch, height, width, 3), or a sequence of images.

        Raises `DeviceOutOfMemoryError` and `DeviceLostError`.
        """
        return self.begin(pixels, patches)()

    def embed_in_float32(self, pixels: Pixels, patches: bool = False) -> Result:
        """Compute the same with the reference forward: for the rare image that overflows."""
        if self.info.dtype == "float32":
            return self.embed(pixels, patches)
        if self._reference is None:
            self._reference = self._load_reference()
        vectors = self._reference(pixels)
        return vectors if patches else vectors._replace(patches=None)
