"""How long a start takes, and how much memory: against importing torch and reading the weights.

`python -m benchmarks.startup [--shape base-patch16-224] [--quick]`

`--compile` measures instead what SIGLIP_COMPILE=on adds: a first start, and one that finds what the
first has compiled. Minutes, even for `--shape tiny-patch16-224`.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.material import BASE, written_checkpoint
from benchmarks.processes import free_port, run_to_end, running_server
from benchmarks.report import Report, Row, show_machine
from benchmarks.timing import Timing
from tests.reference import ReferenceCheckpoint

# What no service of this model can do without; copies, since a mapped tensor is not read yet.
_LEAST_START = """
import sys, torch
from safetensors import safe_open
with safe_open(sys.argv[1], framework="pt") as file:
    names = [name for name in file.keys() if name.startswith("vision_model.")]
    tensors = {name: file.get_tensor(name).clone() for name in names}
assert tensors
"""
_ALLOWED_EXTRA_BYTES = 400e6
_ALLOWED_SHARE_OF_WEIGHTS = 1.3


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--shape", default=BASE)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", action="store_true", help="starts with SIGLIP_COMPILE=on")
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that it works")
    options = parser.parse_args()
    show_machine()
    report = Report("startup")
    with written_checkpoint(options.shape) as checkpoint:
        if options.compile:
            report.add_table(f"start with {options.shape}", _compiled_starts(checkpoint.folder))
            return
        weight_bytes = sum(p.numel() * p.element_size() for p in checkpoint.model.parameters())
        _measure(report, checkpoint, weight_bytes, 2 if options.quick else options.rounds)
    report.save()


def _measure(
    report: Report, checkpoint: ReferenceCheckpoint, weight_bytes: int, rounds: int
) -> None:
    file = str(checkpoint.folder / "model.safetensors")
    run_to_end(_LEAST_START, [file])  # libraries and weights into the page cache, for both
    least_s, ready_s, memory = [], [], []
    for _ in range(rounds):
        least_s.append(run_to_end(_LEAST_START, [file]))
        seconds, peak_and_resident = _start_service(checkpoint.folder)
        ready_s.append(seconds)
        memory.append(peak_and_resident)
    least, ready = Timing(tuple(least_s)), Timing(tuple(ready_s))
    peak, resident = (max(rss) for rss in zip(*memory, strict=True))
    allowed = _ALLOWED_SHARE_OF_WEIGHTS * weight_bytes + _ALLOWED_EXTRA_BYTES
    report.add_table(
        f"start with {checkpoint.folder.name}: lower quartile of {rounds} rounds",
        [
            {"": "import torch, read the vision tensors", "s": least.low_s, "ratio": 1.0},
            {
                "": "python -m app serve, until /readyz is 200",
                "s": ready.low_s,
                "median s": ready.median_s,
                "ratio": ready.low_s / least.low_s,
                "peak RSS MB": peak / 1e6,
                "RSS once ready MB": resident / 1e6,
                "weights MB": weight_bytes / 1e6,
                "allowed MB": allowed / 1e6,
            },
        ],
    )
    report.find("startup.ready", ready.low_s / least.low_s)
    report.find("startup.peak_rss", peak / allowed)
    report.find("startup.resident", resident / allowed)


def _compiled_starts(folder: Path) -> list[Row]:
    """Start without compilation, then with it and an empty cache, then with a full one."""
    with tempfile.TemporaryDirectory() as cache:
        compiled = {"SIGLIP_COMPILE": "on", "TORCHINDUCTOR_CACHE_DIR": cache}
        return [
            {"SIGLIP_COMPILE": name, "s": _start_service(folder, environment)[0]}
            for name, environment in (
                ("off", {}),
                ("on, first start", compiled),
                ("on, second start", compiled),
            )
        ]


def _start_service(
    folder: Path, more: Mapping[str, str] | None = None
) -> tuple[float, tuple[int, int]]:
    """Start the service; return seconds until it is ready, and its memory by then: peak, now."""
    port = free_port()
    environment = {
        "SIGLIP_MODEL": str(folder),
        "SIGLIP_PORT": str(port),
        "SIGLIP_DEVICE": "cpu",
        **(more or {}),
    }
    with tempfile.TemporaryDirectory() as logs:
        start = time.perf_counter()
        with running_server(
            ["-m", "app", "serve"], environment, port, "/readyz", Path(logs) / "log"
        ) as server:
            seconds = time.perf_counter() - start
            return seconds, (server.peak_rss_bytes(), server.rss_bytes())


if __name__ == "__main__":
    main()
