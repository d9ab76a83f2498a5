"""What a benchmark found: tables for reading, JSON for the next program."""

import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"

Cell = str | float | int | None
Row = Mapping[str, Cell]

# Tables are wider than the 80 columns that rich assumes where there is no terminal.
_WIDTH = None if sys.stdout.isatty() else 170

console = Console(width=_WIDTH)


@dataclass
class Report:
    """The tables and findings of one script; `save` when all is measured.

    `findings` are the numbers that budgets are held against, by name; `missing` says why a finding
    could not be had.
    """

    script: str
    folder: Path = RESULTS
    tables: dict[str, Sequence[Row]] = field(default_factory=dict)
    findings: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def add_table(self, title: str, rows: Sequence[Row]) -> None:
        """Keep a table, and print it."""
        self.tables[title] = rows
        console.print(draw_table(title, rows))

    def find(self, name: str, value: float) -> None:
        """Note a finding, and print it."""
        self.findings[name] = value
        console.print(f"{name} = {_format(value)}", highlight=False)

    def miss(self, name: str, reason: str) -> None:
        """Note why a finding could not be had, and print it."""
        self.missing[name] = reason
        console.print(f"{name}: not measured, {reason}", highlight=False)

    def save(self) -> Path:
        """Write <folder>/<script>.json with the facts of this machine."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self.script}.json"
        content = {
            "script": self.script,
            "machine": describe_machine(),
            "findings": self.findings,
            "missing": self.missing,
            "tables": self.tables,
        }
        path.write_text(json.dumps(content, indent=1) + "\n")
        return path


def describe_machine() -> dict[str, Cell]:
    """Name what the figures depend on and the reader cannot see."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "gpu": gpu,
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "load_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "date": time.strftime("%Y-%m-%d %H:%M:%S%z"),
    }


def show_machine() -> None:
    """Print the machine's facts on one line."""
    facts = ", ".join(f"{name} {value}" for name, value in describe_machine().items())
    console.print(facts, style="dim", highlight=False)
    if os.getloadavg()[0] > 0.5 * len(os.sched_getaffinity(0)):
        console.print("This machine is busy: distrust what uses all of its cores.", style="yellow")


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def draw_table(title: str, rows: Sequence[Row]) -> Table:
    """Draw rows under the columns that any of them has."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in columns:
        is_text = any(isinstance(row.get(column), str) for row in rows)
        table.add_column(column, justify="left" if is_text else "right")
    for row in rows:
        table.add_row(*(_format(row.get(column)) for column in columns))
    return table


def _format(value: Cell) -> str:
    """Three significant digits, thousands unharmed; cosines near 1 keep six decimals."""
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    if 0.99 <= value < 1.0:
        return f"{value:.6f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
