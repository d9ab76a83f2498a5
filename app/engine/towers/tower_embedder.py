"""A loaded tower behind the engine, of images or of texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from PIL import Image

from app.engine.protocol import (
    DeviceOutOfMemoryError,
    ModelInfo,
    Pending,
    TextInfo,
    TokenizedText,
    UInt8Array,
    Vectors,
)
from app.engine.towers.device import explain_device_errors
from app.engine.towers.runner import Runner
from app.intake.decode_process import PillowResize
from model.image_processing_base import BaseImageProcessor
from model.tokenization_base import BaseTokenizer

_log = structlog.get_logger(__name__)

Embed = Callable[[Any], Vectors]


def _wait_for(pending: Pending) -> Vectors:
    with explain_device_errors():
        return pending()


class TowerEmbedder:
    """A tower and what runs it; see `app.engine.protocol.BatchEmbedder`.

    `load_reference` reads the weights once more, for a plain forward in float32 on the CPU. Without
    it the tower computes in float32 itself.
    """

    def __init__(self, runner: Runner, load_reference: Callable[[], Embed] | None) -> None:
        self.runner = runner
        self._load_reference = load_reference
        self._reference: Embed | None = None

    def enter_thread(self) -> None:
        """Make the calling thread ready to begin batches; raises `DeviceLostError`.

        Where the memory for the largest is taken by now, that is found out again, and dealt with,
        when such a batch comes.
        """
        try:
            with explain_device_errors():
                self.runner.enter_thread()
        except DeviceOutOfMemoryError:
            _log.warning("no memory now for the largest batch: the first batches will be slow")

    @property
    def batches_in_flight(self) -> int:
        """How many batches to begin before waiting for the first."""
        return self.runner.batches_in_flight

    def begin(self, inputs: Any, /, patches_of: int = 0) -> Pending:
        """Begin a batch, with patches of the first so many; call the result, once, for its vectors.

        Both raise `DeviceOutOfMemoryError` and `DeviceLostError`.
        """
        with explain_device_errors():
            pending = self.runner.begin(inputs, patches_of)
        # Not `explain_device_errors()(pending)`: such a wrapper has all attributes of what it
        # wraps, and would keep what that lets go of, which may be a device's memory.
        return partial(_wait_for, pending)

    def embed(self, inputs: Any, /, patches: bool = False) -> Vectors:
        """Compute a batch; same errors as `begin`."""
        return self.begin(inputs, len(inputs) if patches else 0)()

    def give_up_reference(self) -> None:
        """Have `embed_in_float32` compute as `begin` does, with what is loaded."""
        self._load_reference = None

    def embed_in_float32(self, inputs: Any, /, patches_of: int = 0) -> Vectors:
        """Compute the same with the reference forward: for the rare input that overflows.

        Same errors as `begin`.
        """
        if self._load_reference is None:
            return self.begin(inputs, patches_of)()
        with explain_device_errors():
            if self._reference is None:
                self._reference = self._load_reference()
            vectors = self._reference(inputs)
        patches = (
            vectors.patches[:patches_of] if patches_of and vectors.patches is not None else None
        )
        return vectors._replace(patches=patches)


@dataclass(frozen=True)
class ImageResizer:
    """A model's processor of images; see `app.engine.protocol.Resizer`."""

    info: ModelInfo
    processor: BaseImageProcessor

    def resize(self, image: Image.Image) -> UInt8Array:
        """Bring upright RGB pixels to the model's input: -> uint8 (height, width, 3)."""
        return self.processor.resize(image)

    def pillow_resize(self, size: tuple[int, int]) -> PillowResize | None:
        """Say how Pillow does the same with pixels of `size`, (width, height), if it does."""
        if not self.processor.resizes_with_pillow:
            return None
        height, width = self.processor.target_size(size[1], size[0])
        return PillowResize((width, height), self.processor.resample)


class ImageTowerEmbedder(TowerEmbedder):
    """An image tower with its processor; see `app.engine.protocol.Embedder`."""

    def __init__(
        self,
        info: ModelInfo,
        processor: BaseImageProcessor,
        runner: Runner,
        load_reference: Callable[[], Embed],
    ) -> None:
        super().__init__(runner, None if info.dtype == "float32" else load_reference)
        self.info = info
        self._processor = processor

    @property
    def resizer(self) -> ImageResizer:
        """What brings images to the tower's input."""
        return ImageResizer(self.info, self._processor)

    def resize(self, image: Image.Image) -> UInt8Array:
        """Bring upright RGB pixels to the model's input: -> uint8 (height, width, 3)."""
        return self.resizer.resize(image)

    def pillow_resize(self, size: tuple[int, int]) -> PillowResize | None:
        """Say how Pillow does the same with pixels of `size`, (width, height), if it does."""
        return self.resizer.pillow_resize(size)


class TextTowerEmbedder(TowerEmbedder):
    """A text tower with its tokenizer; see `app.engine.protocol.TextEmbedder`."""

    def __init__(
        self,
        info: TextInfo,
        tokenizer: BaseTokenizer,
        runner: Runner,
        load_reference: Callable[[], Embed],
    ) -> None:
        super().__init__(runner, None if info.dtype == "float32" else load_reference)
        self.info = info
        self._tokenizer = tokenizer

    def tokenize(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Make token ids of texts."""
        encoded = map(self._tokenizer.encode, texts)
        return [TokenizedText(one.input_ids, one.tokens, one.truncated) for one in encoded]
