"""A search of a million vectors whose file is in memory, in both layouts that files of ours have.

`python -m benchmarks.search [--rows 1000000] [--dim 768] [--rounds 5] [--quick]`
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from app.bulk import parquet
from app.bulk.row import Origin
from app.bulk.row import Row as Image
from app.search.index import opened_index
from app.search.ranking import rank_rows
from benchmarks.processes import ROOT
from benchmarks.report import Report, Row, show_machine
from benchmarks.timing import Timing, time_interleaved

_COUNTS = (10, 1000)
_DRAWN_ROWS = 4096


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round of a tenth of the rows")
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        _print_memory(options.once, options.dim)
        return
    rows, rounds = (options.rows // 10, 1) if options.quick else (options.rows, options.rounds)
    show_machine()
    report = Report("search")
    with tempfile.TemporaryDirectory(prefix="siglip-search-") as folder:
        _measure(report, Path(folder), rows, options.dim, rounds)
    report.save()


def _measure(report: Report, folder: Path, rows: int, dim: int, rounds: int) -> None:
    files = {"this layout": folder / "new.parquet", "the earlier layout": folder / "old.parquet"}
    write_s = _write(files["this layout"], rows, dim)
    _write_earlier(files["this layout"], files["the earlier layout"])
    table: list[Row] = []
    for name, path in files.items():
        timings = _time(path, dim, rounds)
        memory = _memory(path, dim)
        table += [
            {
                "": name,
                "k": count,
                "wall, s": wall.low_s,
                "CPU, s": cpu.low_s,
                "GB/s": path.stat().st_size / wall.low_s / 1e9,
                "memory, MiB": memory,
            }
            for count, (wall, cpu) in timings.items()
        ]
    report.add_table(f"{rows} vectors of {dim} float32; writing them took {write_s:.0f} s", table)
    report.find("search_million_s", float(str(table[0]["wall, s"])) * 1e6 / rows)


def _time(path: Path, dim: int, rounds: int) -> dict[int, tuple[Timing, Timing]]:
    """Time searches from opening the file to the paths of what was found."""
    searches = {str(count): (lambda count=count: _search(path, dim, count)) for count in _COUNTS}
    wall = time_interleaved(searches, rounds)
    cpu = time_interleaved(searches, rounds, clock=time.process_time)
    return {count: (wall[str(count)], cpu[str(count)]) for count in _COUNTS}


def _search(path: Path, dim: int, count: int) -> None:
    query = np.random.default_rng(1).standard_normal(dim).astype(np.float32)
    with opened_index(path) as index:
        hits = rank_rows(index, query, count, unit=True)
        index.read_paths([hit.row for hit in hits])


def _memory(path: Path, dim: int) -> float:
    """Return by how many MiB a search of its own process raises its largest resident size."""
    command = ["-m", "benchmarks.search", "--once", str(path), "--dim", str(dim)]
    ended = subprocess.run(
        [sys.executable, *command], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return float(ended.stdout)


def _print_memory(path: Path, dim: int) -> None:
    before = _peak_kib()
    _search(path, dim, _COUNTS[0])
    print((_peak_kib() - before) / 1024)


def _peak_kib() -> int:
    """Return this process's largest resident size; what `getrusage` tells is its parent's too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def _write(path: Path, rows: int, dim: int) -> float:
    start = time.perf_counter()
    parquet.write(path, Origin("m", None, "m:0", "pooled", True, dim), _draw_images(rows, dim))
    return time.perf_counter() - start


def _draw_images(rows: int, dim: int) -> Iterator[Image]:
    random = np.random.default_rng(0)
    for first in range(0, rows, _DRAWN_ROWS):
        vectors = random.standard_normal((min(_DRAWN_ROWS, rows - first), dim), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        for number, vector in enumerate(vectors, first):
            yield Image(f"photographs/{number:07}.jpg", "0" * 64, 640, 480, embedding=vector)


def _write_earlier(new: Path, old: Path) -> None:
    """Write the file as the command did before vectors lay in one uncompressed page."""
    with (
        pq.ParquetFile(new) as file,
        pq.ParquetWriter(old, file.schema_arrow, use_dictionary=False) as writer,
    ):
        for group in range(file.num_row_groups):
            writer.write_table(file.read_row_group(group))


if __name__ == "__main__":
    main()
