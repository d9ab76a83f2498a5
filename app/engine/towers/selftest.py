"""The self-test of a start: the fast path must give what a plain float32 forward gives."""

import math
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog

from app.engine.protocol import SelfTestError, UInt8Array, Vectors

_log = structlog.get_logger(__name__)

FloatArray = npt.NDArray[np.floating[Any]]

_LEAST_COSINE = {"int8": 0.99}
_LEAST_COSINE_OF_FLOATS = 0.999
# Of a vector's length, which a cosine does not see: patches are served as they are, and pooled
# vectors on request. Far more than rounding does in any dtype.
_LARGEST_LENGTH_ERROR = 0.1
# Which image is in which row: another order when read backwards, shifted, or half by half.
_ORDER = (0, 1, 0, 0, 1, 1, 0, 1)


def draw_test_image(side: int) -> UInt8Array:
    """Draw a fixed image with edges, gradients and noise: -> uint8 (side, side, 3)."""
    y, x = np.mgrid[0:side, 0:side] / side
    noise = np.random.default_rng(0).random((side, side, 3))
    shapes = np.stack([x, y, np.hypot(x - 0.5, y - 0.5) < 0.3], axis=-1)
    return np.asarray(255 * (0.8 * shapes + 0.2 * noise), np.uint8)


def check_against_reference(
    embed: Callable[[Sequence[Any], bool], Vectors],
    inputs: Sequence[Any],
    reference: Vectors,
    batch_sizes: Sequence[int],
    dtype: str,
) -> float:
    """Compare vectors of two images, or texts, with the reference's: the least cosine.

    Batches of each size hold both, so that a vector in another's place is found out. Raises
    `SelfTestError` when any cosine is below the bar, or any length is off by more than a tenth:
    better no service than wrong vectors.
    """
    cosines: list[float] = []
    length_errors: list[float] = []
    for size in batch_sizes:
        order = list(islice(cycle(_ORDER), size))
        vectors = embed([inputs[index] for index in order], True)
        for row, index in enumerate(order):
            for ours, theirs in zip(vectors, reference, strict=True):
                if theirs is None:  # as pooled vectors are without a pooling head
                    continue
                own = np.full_like(theirs[index], math.nan) if ours is None else ours[row]
                cosines.append(least_cosine(own, theirs[index]))
                length_errors.append(_largest_length_error(own, theirs[index]))
    cosine = float(np.min(cosines))  # unlike Python's min, NaN if any of them is
    _log.info("self-test", cosine=cosine)
    if not cosine >= _LEAST_COSINE.get(dtype, _LEAST_COSINE_OF_FLOATS):
        raise SelfTestError(f"self-test failed: cosine {cosine:.5f} to the float32 reference")
    length_error = float(np.max(length_errors))
    if not length_error <= _LARGEST_LENGTH_ERROR:
        raise SelfTestError(
            f"self-test failed: a length is off by {length_error:.1%} of the float32 reference's"
        )
    return cosine


def least_cosine(vectors: FloatArray, reference: FloatArray) -> float:
    """Return the least cosine of vectors to those of a reference: (.., dim) each."""
    lengths = np.linalg.norm(vectors, axis=-1) * np.linalg.norm(reference, axis=-1)
    return float(np.min(np.sum(vectors * reference, axis=-1) / lengths))


def _largest_length_error(vectors: FloatArray, reference: FloatArray) -> float:
    lengths = np.linalg.norm(vectors, axis=-1) / np.linalg.norm(reference, axis=-1)
    return float(np.max(np.abs(lengths - 1)))
