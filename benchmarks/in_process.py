"""The model without the service around it: what HTTP has to come close to.

A process of its own, as the service is: what runs beside it must not share its threads.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from app.allocator import configure_allocators
from app.engine.embedder import load_embedder
from app.observe.logs import configure_logs
from app.settings import Settings
from benchmarks.material import photograph_pixels
from benchmarks.processes import ROOT
from benchmarks.timing import Timing

# As app/__main__.py sets it for the service.
_ENVIRONMENT = {"GOMP_SPINCOUNT": "10000"}


class InProcess:
    """The service's embedder on full batches of decoded photographs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._s_per_image: list[float] = []
        self._cpu_s_per_image: list[float] = []

    @classmethod
    @contextmanager
    def running(cls, folder: Path) -> Iterator[Self]:
        """Start the process, and end it after the block."""
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.in_process", str(folder)],
            cwd=ROOT,
            env=_ENVIRONMENT | os.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:  # closes its input, which ends it
            yield cls(process)

    def run(self, seconds: float) -> None:
        """Embed for some time, and note how long an image took."""
        assert self._process.stdin is not None  # noqa: S101 # for the type checker: both are pipes
        assert self._process.stdout is not None  # noqa: S101
        print(seconds, file=self._process.stdin, flush=True)
        took = json.loads(self._process.stdout.readline())
        self._s_per_image.append(took["s"])
        self._cpu_s_per_image.append(took["cpu_s"])

    @property
    def s_per_image(self) -> float:
        """Lower quartile of all runs."""
        return Timing(tuple(self._s_per_image)).low_s

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds per image, lower quartile of all runs."""
        return 1000 * Timing(tuple(self._cpu_s_per_image)).low_s


def main(folder: str) -> None:
    """For every line, a number of seconds, embed that long and print the time per image."""
    configure_logs("error", "console")
    configure_allocators()
    settings = Settings()
    embedder = load_embedder(folder, "cpu", settings.dtype)
    batch = embedder.info.max_batch_size
    pixels = photograph_pixels(batch, embedder.info.image_size)
    for line in sys.stdin:
        embedder.embed(pixels)
        batches, start, cpu_start_s = 0, time.perf_counter(), time.process_time()
        while (elapsed_s := time.perf_counter() - start) < float(line):
            embedder.embed(pixels)
            batches += 1
        images = batches * batch
        cpu_s = time.process_time() - cpu_start_s
        print(json.dumps({"s": elapsed_s / images, "cpu_s": cpu_s / images}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
