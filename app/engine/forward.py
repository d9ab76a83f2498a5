"""Batches through a tower, one outcome per image or text whatever goes wrong.

A batch that fails is halved until only the culprit fails. A batch that the device has no memory for
is halved too, and later ones start at the size that worked. A vector that is not finite is computed
once more in float32 before its image or text fails.
"""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import structlog

from app.engine.protocol import (
    BatchEmbedder,
    DeviceLostError,
    DeviceOutOfMemoryError,
    Float32Array,
    Int64Array,
    MaybeNone,
    Modality,
    Pending,
    UInt8Array,
    Vectors,
)
from app.errors import InternalError, NonFiniteError, OutOfMemoryError, ServiceError

_log = structlog.get_logger(__name__)

# After so long with smaller batches a larger one is tried again.
_CAUTION_S = 300.0

Result = TypeVar("Result")


class OwnVectors(NamedTuple):
    """The vectors of one image or text, None for what was not asked for or the model does not have.

    pooled (dim,), patches (patches, dim).
    """

    pooled: Float32Array | MaybeNone
    patches: Float32Array | None


def unit_vector(pooled: Float32Array) -> npt.NDArray[np.float64]:
    """Scale a pooled vector to length 1: (dim,) -> (dim,)."""
    return pooled / np.linalg.norm(pooled.astype(np.float64))  # the square may overflow


class Wanted(NamedTuple):
    """What to compute: one image, uint8 (height, width, 3), or one text, int64 (tokens,)."""

    inputs: UInt8Array | Int64Array
    patches: bool


Outcome = OwnVectors | ServiceError


class Forward:
    """Runs batches of at most `batch_limit` images or texts; for one thread."""

    def __init__(
        self, embedder: BatchEmbedder, max_batch_size: int, modality: Modality = "image"
    ) -> None:
        self._embedder = embedder
        self._modality = modality
        self._max_batch_size = max_batch_size
        self._limit = max_batch_size
        self._shrunk_at = 0.0

    @property
    def batch_limit(self) -> int:
        """How many to put into a batch: what the device had memory for, at last count."""
        if self._limit < self._max_batch_size and time.monotonic() > self._shrunk_at + _CAUTION_S:
            self._limit = min(2 * self._limit, self._max_batch_size)
            self._shrunk_at = time.monotonic()
        return self._limit

    def begin(self, batch: Sequence[Wanted]) -> Callable[[], list[Outcome]]:
        """Begin a batch; call the result, once, to wait for its outcomes.

        Both raise only `DeviceLostError`, and what is no `Exception`. What else goes wrong with one
        batch is dealt with when that batch is waited for.
        """
        # Those with patches go first: an embedder gives the patches of the first so many only.
        order = sorted(range(len(batch)), key=lambda place: not batch[place].patches)
        wait = self._begin([batch[place] for place in order])
        return lambda: _put_back(order, wait())

    def run(self, batch: Sequence[Wanted]) -> list[Outcome]:
        """Compute a batch; raises what `begin` raises."""
        return self.begin(batch)()

    def _begin(self, batch: Sequence[Wanted]) -> Callable[[], list[Outcome]]:
        inputs, patches_of = _inputs_of(batch)
        pending = self._try(batch, lambda: self._embedder.begin(inputs, patches_of))
        return partial(self._finish, batch, pending)

    def _finish(self, batch: Sequence[Wanted], pending: Pending | ServiceError) -> list[Outcome]:
        outcomes: list[Outcome] | ServiceError
        if isinstance(pending, ServiceError):
            outcomes = pending
        else:
            outcomes = self._try(batch, lambda: _outcomes_of(batch, pending()))
        if not isinstance(outcomes, ServiceError):
            return self._retry_in_float32(batch, outcomes)
        if isinstance(outcomes, OutOfMemoryError):
            self._limit, self._shrunk_at = max(1, len(batch) // 2), time.monotonic()
        if len(batch) == 1:
            return [outcomes]
        middle = len(batch) // 2
        return [*self._begin(batch[:middle])(), *self._begin(batch[middle:])()]

    def _try(self, batch: Sequence[Wanted], compute: Callable[[], Result]) -> Result | ServiceError:
        """Return what `compute` returns, or why it failed; raises `DeviceLostError`.

        What is tried next is not tried from within `except`: it must not share the memory with the
        frames, and the tensors, of what failed.
        """
        try:
            return compute()
        except DeviceLostError:
            raise
        except DeviceOutOfMemoryError:
            _log.warning("batch is too large", of=self._modality, count=len(batch))
            return OutOfMemoryError("the device is out of memory")
        except Exception as error:  # noqa: BLE001 # the thread must outlive any model fault
            kind = type(error).__name__
            _log.exception("batch failed", of=self._modality, count=len(batch), error=kind)
            return InternalError(f"the model failed on this {self._modality}")

    def _retry_in_float32(self, batch: Sequence[Wanted], outcomes: list[Outcome]) -> list[Outcome]:
        """Replace the outcomes that are not finite, where more precision helps."""
        bad = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, NonFiniteError)]
        if not bad:
            return outcomes
        try:
            bad_ones = [batch[i] for i in bad]
            vectors = self._embedder.embed_in_float32(*_inputs_of(bad_ones))
            again = _outcomes_of(bad_ones, vectors)
        except DeviceLostError:
            raise
        except Exception as error:  # noqa: BLE001 # the first outcomes stand
            _log.warning("no second try in float32", error=type(error).__name__)
            return outcomes
        _log.warning("vectors were not finite", of=self._modality, count=len(bad))
        for i, outcome in zip(bad, again, strict=True):
            outcomes[i] = outcome
        return outcomes


def _put_back(order: Sequence[int], outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return outcomes that came in this order in that of their places."""
    by_place = dict(zip(order, outcomes, strict=True))
    return [by_place[place] for place in range(len(order))]


def _inputs_of(batch: Sequence[Wanted]) -> tuple[list[UInt8Array | Int64Array], int]:
    return [wanted.inputs for wanted in batch], sum(wanted.patches for wanted in batch)


def _outcomes_of(batch: Sequence[Wanted], vectors: Vectors) -> list[Outcome]:
    sound = [False] * len(batch) if vectors.pooled is None else _are_sound(vectors.pooled)
    own = [_row(vectors, row, wanted.patches) for row, wanted in enumerate(batch)]
    return [
        one if is_sound and one.patches is None else _checked(one)
        for one, is_sound in zip(own, sound, strict=True)
    ]


def _row(vectors: Vectors, row: int, patches: bool) -> OwnVectors:
    pooled = None if vectors.pooled is None else vectors.pooled[row]
    return OwnVectors(
        pooled, vectors.patches[row] if patches and vectors.patches is not None else None
    )


def _are_sound(pooled: Float32Array) -> list[bool]:
    """Say whose square is a number above zero; the others are to be looked at closely.

    One call for all of them: NumPy gives up the interpreter's lock in each, and waits for it after.
    """
    squares: list[float] = np.einsum("ij,ij->i", pooled, pooled).tolist()
    return [0 < square < math.inf for square in squares]


def _checked(own: OwnVectors) -> Outcome:
    if not all(part is None or np.isfinite(part).all() for part in own):
        return NonFiniteError("the model gave a vector that is not finite")
    if own.pooled is not None and not own.pooled.any():
        return NonFiniteError("the model gave a vector of length zero, which has no direction")
    return own
