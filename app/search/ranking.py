"""The rows that are nearest to a query: all of them are looked at."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from app.cores import count_cores
from app.engine.forward import unit_vector
from app.engine.protocol import Float32Array, Int64Array

Float64Array = npt.NDArray[np.float64]


class Block(NamedTuple):
    """Some rows by number, and their vectors, (rows, dim), which last until the next block."""

    rows: Int64Array
    vectors: Float32Array


class VectorFile(Protocol):
    """What is searched; many threads may read it."""

    @property
    def groups(self) -> range:
        """Its parts by number."""
        ...

    def read_blocks(self, group: int) -> Iterable[Block]:
        """Go through the rows of a part that have vectors."""
        ...


class Hit(NamedTuple):
    """A row by number, and the cosine of its vector to the query."""

    row: int
    score: float


def rank_rows(index: VectorFile, query: Float32Array, count: int, *, unit: bool) -> list[Hit]:
    """Return the `count` rows nearest to a query, (dim,), the nearest first, by row where equal.

    `unit` says that the vectors have length 1, as those of an index do unless told otherwise.
    In memory is a block of vectors for each core. Rows whose vector has no direction, being zero or
    not finite, are left out.
    """
    ranking = _Ranking(query, count, unit=unit)

    def rank_group(group: int) -> None:
        for rows, vectors in index.read_blocks(group):
            ranking.add(rows, vectors)

    with ThreadPoolExecutor(count_cores()) as pool:
        for done in pool.map(rank_group, index.groups):
            assert done is None  # noqa: S101 # what it raised would have been raised here
    return ranking.hits


class _Ranking:
    """The best rows of those that were added, in any order and by any thread.

    Scores are computed in float32, and of what could be among the best by them once more in
    float64: the score of a row then depends on its vector alone, and copies are equally near.
    """

    def __init__(self, query: Float32Array, count: int, *, unit: bool) -> None:
        self._exact_query = unit_vector(query)
        self._query = self._exact_query.astype(np.float32)
        self._count = count
        self._unit = unit
        # Twice what a sum of so many rounded products can be off, for vectors of length 1.
        self._margin = 2 * len(query) * float(np.finfo(np.float32).eps)
        self._rows: Int64Array = np.empty(0, np.int64)
        self._scores: Float64Array = np.empty(0)
        self._lock = Lock()

    @property
    def hits(self) -> list[Hit]:
        """The best rows, the best first."""
        return [Hit(*hit) for hit in zip(self._rows.tolist(), self._scores.tolist(), strict=True)]

    def add(self, rows: Int64Array, vectors: Float32Array) -> None:
        """Take in some rows and their vectors, (rows, dim)."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            near = np.flatnonzero(~(self._estimate(vectors) < self._least - self._margin))
            if len(near):
                self._merge(rows[near], _cosines(vectors[near], self._exact_query))

    @property
    def _least(self) -> float:
        """What a row must have to be among the best; others may have raised it meanwhile."""
        scores = self._scores
        return float(scores[-1]) if len(scores) == self._count else -np.inf

    def _estimate(self, vectors: Float32Array) -> Float32Array:
        scores: Float32Array = vectors @ self._query
        if not self._unit:
            scores /= np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        return scores

    def _merge(self, rows: Int64Array, scores: Float64Array) -> None:
        finite = np.isfinite(scores)
        with self._lock:
            rows = np.concatenate([self._rows, rows[finite]])
            scores = np.concatenate([self._scores, scores[finite]])
            best = np.lexsort((rows, -scores))[: self._count]
            self._rows, self._scores = rows[best], scores[best]


def _cosines(vectors: Float32Array, query: Float64Array) -> Float64Array:
    """Return (rows,) of (rows, dim), not by BLAS, whose order of a sum depends on its place."""
    exact = vectors.astype(np.float64)
    cosines: Float64Array = (exact * query).sum(1) / np.sqrt((exact * exact).sum(1))
    return cosines
