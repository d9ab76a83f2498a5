"""The self-test of a start: the fast path must give what a plain float32 forward gives."""

import numpy as np
import structlog

from app.engine.protocol import Float32Array, SelfTestError, UInt8Array, UnevenVectors, Vectors

_log = structlog.get_logger(__name__)

_LEAST_COSINE = {"int8": 0.99}
_LEAST_COSINE_OF_FLOATS = 0.999


def draw_test_image(side: int) -> UInt8Array:
    """Draw a fixed image with edges, gradients and noise: -> uint8 (side, side, 3)."""
    y, x = np.mgrid[0:side, 0:side] / side
    noise = np.random.default_rng(0).random((side, side, 3))
    shapes = np.stack([x, y, np.hypot(x - 0.5, y - 0.5) < 0.3], axis=-1)
    return np.asarray(255 * (0.8 * shapes + 0.2 * noise), np.uint8)


def check_against_reference(
    fast: Vectors | UnevenVectors, reference: Vectors | UnevenVectors, dtype: str
) -> float:
    """Compare pooled and patch vectors of the fast path with the reference's: the least cosine.

    Raises `SelfTestError` when any vector's cosine is below the bar: better no service than wrong
    vectors.
    """
    pairs = [(fast.pooled, reference.pooled)]
    if fast.patches is not None and reference.patches is not None:
        pairs.extend(zip(fast.patches, reference.patches, strict=True))
    cosine = min(_least_cosine(*pair) for pair in pairs)
    _log.info("self-test", cosine=cosine)
    if not cosine >= _LEAST_COSINE.get(dtype, _LEAST_COSINE_OF_FLOATS):
        raise SelfTestError(f"self-test failed: cosine {cosine:.5f} to the float32 reference")
    return cosine


def _least_cosine(vectors: Float32Array, reference: Float32Array) -> float:
    lengths = np.linalg.norm(vectors, axis=-1) * np.linalg.norm(reference, axis=-1)
    return float(np.min(np.sum(vectors * reference, axis=-1) / lengths))
