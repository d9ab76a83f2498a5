"""What a run embeds, images or texts: all that the rest of a run knows of either."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from app.bulk.journal import Journal
from app.bulk.left_out import LeftOut
from app.bulk.pipeline import Piece
from app.bulk.row import OutputKind
from app.engine.forward import unit_vector
from app.engine.protocol import Float32Array, Modality, Towers


@dataclass(frozen=True)
class VectorOptions:
    """Which vectors each image or text is to have, and whether pooled ones get length 1."""

    output: OutputKind = "pooled"
    normalize: bool = True


class Left(NamedTuple):
    """What of a source is still to be done: how many images or texts, and in which pieces."""

    total: int
    pieces: Iterator[Piece]


class Found(Protocol):
    """What a source has."""

    @property
    def names(self) -> Collection[str]:
        """The name of each image or text, in order."""
        ...

    @property
    def left_out(self) -> LeftOut | None:
        """What of folders was left out; None where there are no folders."""
        ...

    def left(self, journal: Journal, towers: Towers) -> Left:
        """Return what has no vectors in a journal."""
        ...


class Source(Protocol):
    """Images or texts, where they are, and which vectors they are to have."""

    @property
    def modality(self) -> Modality:
        """What they are."""
        ...

    @property
    def options(self) -> VectorOptions:
        """Which vectors each is to have."""
        ...

    def opened(self, own: Iterable[Path]) -> AbstractContextManager[Found]:
        """Find all, none of it among a run's `own` paths; raises `BulkError` if that is nothing."""
        ...

    def pieces_in_flight(self, towers: Towers) -> int:
        """Return how many pieces keep a device busy; raises `BulkError` where there is no tower."""
        ...


def pooled_vector(vector: Float32Array, options: VectorOptions) -> Float32Array:
    """Bring a pooled vector, (dim,), to the length that is asked for."""
    return unit_vector(vector).astype(np.float32) if options.normalize else vector
