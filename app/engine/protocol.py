"""The one seam of the engine: what a model must offer, and what it answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from app.intake.decode_process import PillowResize

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]

# As in typeshed: None is possible, but only where `ModelInfo.pooled` is false, and whoever runs a
# published model need not check.
MaybeNone: TypeAlias = Any
# A list of arrays where one array cannot be, and whoever runs a model of fixed resolution need not
# check.
MaybeList: TypeAlias = Any

Int64Array = npt.NDArray[np.int64]

Modality = Literal["image", "text"]

Pixels = UInt8Array | Sequence[UInt8Array]
"""Images at the model's input size: uint8 (batch, height, width, 3), or (height, width, 3) each."""


class StartError(Exception):
    """The model cannot be served; the message is one line for whoever started the service."""


class SelfTestError(StartError):
    """The loaded model does not compute what its weights say."""


class DeviceOutOfMemoryError(Exception):
    """The device has no memory for a batch of this size; a smaller one may do."""


class DeviceLostError(Exception):
    """The device will not compute again in this process."""


class Vectors(NamedTuple):
    """The vectors of a batch, row i for image i."""

    pooled: Float32Array | MaybeNone = None
    """(batch, dim), not normalised; None for a model without pooling head."""
    patches: Float32Array | MaybeList | None = None
    """(images, patches, dim) of the first images, those whose patches were asked for; or None.

    Where images have different numbers of patches: a list of (own patches, dim).
    """


Pending = Callable[[], Vectors]
"""A batch that has begun: calling it, once, waits for its vectors."""


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What a caller may know of the loaded model; sizes in pixels.

    `image_size` is the side that a square image gets, and `max_patches` the most that any image
    gets: all images of a model of fixed resolution get the same.
    """

    model: str
    revision: str | None
    space: str
    dim: int
    image_size: int
    patch_size: int
    max_patches: int
    device: str
    dtype: str
    pretrained: bool
    pooled: bool = True
    """Whether there are pooled vectors: not without a pooling head (vision_use_head)."""
    naflex: bool = False
    """Whether each image has a number of patches of its own."""
    attention: str = "together"
    """How patches attend: all images of a batch together, or one_by_one, as suits the processor."""
    max_batch_size: int = 1
    """Images in one forward pass, as found out at the start."""
    selftest_cosine: float | None = None
    """Least cosine of the start's self-test to the float32 reference."""
    source: str = ""
    """What it was loaded by, and its text side is: hub id, folder or `random:SHAPE`."""


@dataclass(frozen=True, kw_only=True)
class TextInfo:
    """What a caller may know of the text side of the loaded model."""

    text_space: str
    """Covers the text weights, the tokenizer, cleaning and length."""
    dim: int
    max_tokens: int
    dtype: str
    logit_scale: float | None = None
    """With `logit_bias`, cosine to probability: sigmoid(exp(scale) * cosine + bias)."""
    logit_bias: float | None = None
    max_batch_size: int = 1
    selftest_cosine: float | None = None


class TokenizedText(NamedTuple):
    """A text as its tower takes it."""

    input_ids: Int64Array
    """(max_tokens,), padded."""
    tokens: int
    """How many the whole text has, with the token that ends it."""
    truncated: bool
    """Whether some of them were cut off."""


@dataclass(frozen=True)
class NoTexts:
    """There is no text side, and why, as a part of a sentence."""

    reason: str


NO_TEXTS = NoTexts("only the image tower is loaded")


class BatchEmbedder(Protocol):
    """A tower that turns batches into vectors, in one thread.

    All that compute, waiting for a batch included, may raise `DeviceOutOfMemoryError`,
    `DeviceLostError` and anything else.
    """

    def enter_thread(self) -> None:
        """Do, in the thread that is going to begin batches, what the first one would wait for."""
        ...

    @property
    def batches_in_flight(self) -> int:
        """How many batches to begin before waiting for the first: 1 where a second gains nothing.

        More may be begun; each then takes memory of its own.
        """
        ...

    def begin(self, inputs: Any, /, patches_of: int = 0) -> Pending:
        """Begin to compute the vectors of a batch: `Pixels`, or input ids of texts.

        The vectors have patches of the first `patches_of` only. The inputs may be read until the
        batch has been waited for, in the order of beginning.
        """
        ...

    def embed_in_float32(self, inputs: Any, /, patches_of: int = 0) -> Vectors:
        """Compute the same, slower and in float32, for inputs whose vectors are not finite."""
        ...


class TextEmbedder(BatchEmbedder, Protocol):
    """The text side of a loaded model. `tokenize` may run in many threads at once."""

    @property
    def info(self) -> TextInfo:
        """Describe it."""
        ...

    def tokenize(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Make token ids of texts, none of which is too long to be taken."""
        ...


class Resizer(Protocol):
    """What brings images to a model's input; `resize` may run in many threads at once."""

    @property
    def info(self) -> ModelInfo:
        """Describe the model."""
        ...

    def resize(self, image: Image.Image) -> UInt8Array:
        """Bring upright RGB pixels to the model's input: -> uint8 (height, width, 3)."""
        ...

    def pillow_resize(self, size: tuple[int, int]) -> PillowResize | None:
        """Say what Pillow is to do with upright pixels of `size`, (width, height), to the same end.

        None where `resize` needs something else.
        """
        ...


class Embedder(BatchEmbedder, Resizer, Protocol):
    """A loaded model."""

    @property
    def resizer(self) -> Resizer:
        """What brings images to its input, without weights: it can be sent to other processes."""
        ...

    def embed(self, pixels: Pixels, patches: bool = False) -> Vectors:
        """Begin a batch of what `resize` gave and wait for its vectors."""
        ...


class Towers(NamedTuple):
    """All of a loaded model."""

    images: Embedder
    texts: TextEmbedder | NoTexts
