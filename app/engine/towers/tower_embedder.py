"""A loaded model of any family behind the engine."""

from collections.abc import Callable
from typing import Any

from PIL import Image

from app.engine.protocol import ModelInfo, Pending, Pixels, UInt8Array, Vectors
from app.engine.towers.device import explain_device_errors
from app.engine.towers.reference import embed_plainly
from app.engine.towers.runner import Runner
from app.intake.decode_process import PillowResize
from model.image_processing_base import BaseImageProcessor
from model.pretrained import PreTrainedVisionModel


class TowerEmbedder:
    """A tower with its image processor; see `app.engine.protocol.Embedder`.

    `load_again` reads the weights once more, for a plain forward in float32 on the CPU.
    """

    def __init__(
        self,
        info: ModelInfo,
        processor: BaseImageProcessor,
        runner: Runner,
        load_again: Callable[[], PreTrainedVisionModel[Any]],
    ) -> None:
        self.info = info
        self._processor = processor
        self._runner = runner
        self._load_again = load_again
        self._reference: PreTrainedVisionModel[Any] | None = None

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

    def begin(self, pixels: Pixels, patches: bool = False) -> Pending:
        """Begin a batch of what `resize` gave; call the result, once, for its vectors.

        Both raise `DeviceOutOfMemoryError` and `DeviceLostError`.
        """
        with explain_device_errors():
            return explain_device_errors()(self._runner.begin(pixels, patches))

    def embed(self, pixels: Pixels, patches: bool = False) -> Vectors:
        """Compute what `resize` gave: a batch in one array, or a list; same errors as `begin`."""
        return self.begin(pixels, patches)()

    def embed_in_float32(self, pixels: Pixels, patches: bool = False) -> Vectors:
        """Compute the same with the reference forward: for the rare image that overflows."""
        if self.info.dtype == "float32":
            return self.embed(pixels, patches)
        if self._reference is None:
            self._reference = self._load_again().float()
        vectors = embed_plainly(self._reference, self._processor, pixels)
        return vectors if patches else vectors._replace(patches=None)
