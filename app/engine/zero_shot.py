"""Zero-shot classification: an image's vector against those of labels, in float64."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from app.engine.forward import unit_vector
from app.engine.protocol import Float32Array, TextInfo

Float64Array = npt.NDArray[np.float64]

Scoring = Literal["sigmoid", "softmax", "cosine"]
"""Each label by itself, all labels against one another, or the bare cosine."""


class ScoredLabel(NamedTuple):
    """A label by its place among those asked for, its score, and its cosine to the image."""

    place: int
    score: float
    cosine: float


@dataclass(frozen=True)
class Logits:
    """What makes logits of cosines: exp(scale) * cosine + bias, as the reference model does."""

    scale: float
    bias: float

    @classmethod
    def of(cls, info: TextInfo) -> "Logits | None":
        """Return those of a model, None where its checkpoint has none."""
        if info.logit_scale is None or info.logit_bias is None:
            return None
        return cls(info.logit_scale, info.logit_bias)

    def __call__(self, cosines: Float64Array) -> Float64Array:
        """Scale and shift cosines: (labels,) -> (labels,)."""
        logits: Float64Array = np.exp(self.scale) * cosines + self.bias
        return logits


def average_prompts(vectors: Sequence[Float32Array], counts: Sequence[int]) -> Float64Array:
    """Make one vector of length 1 for each label: (prompts, dim) -> (labels, dim).

    `counts` are the prompts of each label, at least one. They are normalised, averaged, and
    normalised again: section 3.1.4 of CLIP's paper (arXiv 2103.00020), and its code.
    """
    prompts = np.stack(vectors, dtype=np.float64)
    prompts /= np.linalg.norm(prompts, axis=1, keepdims=True)
    starts = np.cumsum([0, *counts[:-1]])
    sums = np.add.reduceat(prompts, starts)
    # Prompts that cancel out have no direction: their cosine is 0 then, not NaN.
    lengths = np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    averages: Float64Array = sums / lengths
    return averages


def rank_labels(
    pooled: Float32Array,
    labels: Float64Array,
    scoring: Scoring,
    logits: Logits | None,
    count: int | None = None,
) -> list[ScoredLabel]:
    """Score the labels of one image, best first; `logits` may be None for cosines.

    (dim,) and (labels, dim) of length 1 -> the first `count` labels, by default all.
    """
    cosines = labels @ unit_vector(pooled)
    scores = cosines
    if scoring != "cosine" and logits is not None:
        scores = _sigmoid(logits(cosines)) if scoring == "sigmoid" else _softmax(logits(cosines))
    # By the cosines: scores rise with them, but may be equal where these are not.
    order = np.argsort(-cosines, kind="stable")[:count]
    ranked = (order.tolist(), scores[order].tolist(), cosines[order].tolist())
    return [ScoredLabel(*label) for label in zip(*ranked, strict=True)]


def _sigmoid(logits: Float64Array) -> Float64Array:
    """Return 1 / (1 + exp(-logits)); neither side overflows, and small ones keep their digits."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, small) / (1.0 + small)


def _softmax(logits: Float64Array) -> Float64Array:
    parts = np.exp(logits - logits.max())
    shares: Float64Array = parts / parts.sum()
    return shares
