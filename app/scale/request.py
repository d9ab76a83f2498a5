"""What the bulk command asks of a cluster."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.bulk.source import VectorOptions


@dataclass(frozen=True)
class ScaleRequest:
    """What to embed and where to, and how much of a cluster that may take.

    `workers` hold a model each; without a number there is one a GPU, or one. Fewer than
    `rows_per_file` images are lost by whatever ends the run, of each file that is being filled.
    """

    paths: Sequence[str]
    manifest: Path | None
    output: str
    options: VectorOptions
    resume: bool
    quiet: bool
    max_error_rate: float
    rows_per_file: int
    workers: int | None
    cpus: float | None
    gpus: float | None
    address: str | None
