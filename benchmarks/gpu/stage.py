"""A stage of the run: what it measures, for how long at most, and how its results are kept."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.report import Report, Row


@dataclass(frozen=True)
class Plan:
    """What to measure on: a device, the models' shapes, sizes of batches, seconds of a window."""

    device: str
    out: Path
    shape: str = "base-patch16-224"
    large_shape: str = "so400m-patch14-384"
    naflex_shape: str = "base-patch16-naflex"
    batches: tuple[int, ...] = (1, 8, 64, 128, 256)
    large_batches: tuple[int, ...] = (16, 32)
    processes: tuple[int, ...] = (1, 4, 8)
    images_of_request: tuple[int, ...] = (1, 16, 64)
    window_s: float = 5.0
    peak_side: int = 8192
    patience: float = 1.0
    """Stages may take so many times as long as they should."""

    @property
    def on_cuda(self) -> bool:
        """Whether it is a CUDA device."""
        return self.device.startswith("cuda")

    @property
    def torch_device(self) -> torch.device:
        """The device, for torch."""
        return torch.device(self.device)


def quick_plan(device: str, out: Path) -> Plan:
    """Plan so little that the script itself is tried, and nothing is measured."""
    return Plan(
        device,
        out,
        shape="tiny-patch16-224",
        large_shape="tiny-patch16-224",
        naflex_shape="tiny-patch16-naflex",
        batches=(1, 2),
        large_batches=(2,),
        processes=(1,),
        images_of_request=(1, 2),
        window_s=0.1,
        peak_side=256,
        patience=10.0,
    )


class Results:
    """The report of one stage, of which all that is known by now is on the disk."""

    def __init__(self, name: str, folder: Path) -> None:
        self._report = Report(f"gpu_{name}", folder)

    @contextmanager
    def table(self, title: str) -> Iterator[Callable[[Row], None]]:
        """Give what adds a row, which is on the disk at once; print the table after the block."""
        rows: list[Row] = []

        def add(row: Row) -> None:
            rows.append(row)
            self._report.tables[title] = rows
            self._report.save()

        try:
            yield add
        finally:
            self._report.add_table(title, rows)

    def find(self, name: str, value: float) -> None:
        """Keep a number."""
        self._report.find(name, value)
        self._report.save()

    def skip(self, what: str, reason: str) -> None:
        """Note that something was not measured."""
        self._report.miss(what, reason)
        self._report.save()

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Let what fails within the block be noted as not measured, and the stage go on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 # whatever it is, the other figures are wanted
            self.skip(what, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")


class Stage(NamedTuple):
    """One stage; one that `needs_cuda` is skipped elsewhere."""

    name: str
    limit_s: float
    run: Callable[[Plan, Results], None]
    needs_cuda: bool = False
