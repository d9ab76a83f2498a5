"""Replicas and workers on Ray against the single process: rates, and what they cost in CPU.

On a machine whose cores one process keeps busy, replicas cannot be faster: what is seen there is
what HAProxy and Ray cost. Of several rounds the best counts: whatever else the machine does only
slows. Needs the extra `ray`.

`python -m benchmarks.scale [--only serve|bulk] [--model base-patch16-224] [--most 4] [--rounds 2]
[--seconds 10] [--quick]`
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.client import put_under_load
from benchmarks.material import BASE, TINY, encode, photograph_of_size, written_checkpoint
from benchmarks.messages import raw_request
from benchmarks.processes import ROOT, Server, cpu_s_of, running_server
from benchmarks.report import Report, Row, show_machine

_CONNECTIONS = 16
_FEW, _MANY = 1000, 5000
# Ray's processes take ports by chance from 32768 on.
_PORT = 21_400
_START_S = 300
_SETTLE_S = 5
_IDLE_S = 3
_LOOK_EVERY_S = 0.1


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--only", choices=("serve", "bulk"))
    parser.add_argument("--model", choices=(TINY, BASE), default=TINY, help="its shape")
    parser.add_argument("--most", type=int, default=4, help="replicas, and workers, at most")
    parser.add_argument("--rounds", type=int, default=2, help="of all numbers of replicas")
    parser.add_argument("--seconds", type=float, default=10, help="of load, a round")
    parser.add_argument("--quick", action="store_true", help="two at most, one short round")
    options = parser.parse_args()
    if options.quick:
        options.most, options.rounds, options.seconds = 2, 1, 5.0
    show_machine()
    report = Report("scale")
    with written_checkpoint(options.model) as checkpoint:
        bench = _Bench(report, options.model, checkpoint.folder, options.most, options.rounds)
        if options.only != "bulk":
            _measure_serving(bench, options.seconds)
        if options.only != "serve":
            _measure_bulk(bench, *((_FEW // 4, _MANY // 4) if options.quick else (_FEW, _MANY)))
    report.save()


class _Bench(NamedTuple):
    report: Report
    model: str
    checkpoint: Path
    most: int
    rounds: int

    @property
    def counts(self) -> range:
        """How many replicas, or workers: 0 is the command without Ray."""
        return range(self.most + 1)


class _Served(NamedTuple):
    """What a round of load saw; milliseconds of CPU a request, but `idle_ms`: those of a second."""

    idle_ms: float
    per_s: float
    cpu_ms: float
    haproxy_ms: float
    client_ms: float


def _jpeg() -> bytes:
    return encode(photograph_of_size(640, 480), "JPEG", quality=90)


def _measure_serving(bench: _Bench, seconds: float) -> None:
    request = raw_request("/embed", _jpeg())
    rounds = [
        [_serve(bench.checkpoint, replicas, request, seconds) for replicas in bench.counts]
        for _ in range(bench.rounds)
    ]
    rows: list[Row] = []
    for replicas, served in enumerate(zip(*rounds, strict=True)):
        best = max(served, key=lambda one: one.per_s)
        rows.append(
            {
                "replicas": f"Ray, {replicas}" if replicas else "one process",
                "CPUs each": _cpus_of(replicas) if replicas else None,
                "requests/s": best.per_s,
                "of the worst round": min(one.per_s for one in served),
                "CPU, ms": best.cpu_ms,
                "of it HAProxy's": best.haproxy_ms if replicas else None,
                "the client's": best.client_ms,
                "CPU without requests, ms/s": best.idle_ms,
            }
        )
        name = f"scale.serve.{replicas}"
        bench.report.find(f"{name}.requests_per_s", best.per_s)
        bench.report.find(f"{name}.cpu_ms", best.cpu_ms)
    title = f"{bench.model}, one 640x480 JPEG a request, {_CONNECTIONS} connections"
    bench.report.add_table(title, rows)


def _serve(checkpoint: Path, replicas: int, request: bytes, seconds: float) -> _Served:
    with _serving(checkpoint, replicas) as server:
        time.sleep(_SETTLE_S)
        idle_s = server.cpu_s()
        time.sleep(_IDLE_S)
        before = server.cpu_s("haproxy"), server.cpu_s()
        load = put_under_load(server, request, _CONNECTIONS, seconds)
        after = server.cpu_s("haproxy"), server.cpu_s()
    share = (after[0] - before[0]) / (after[1] - before[1])
    cpu_ms = 1000 * load.server_cpu_s / load.requests
    client_ms = 1000 * load.client_cpu_s / load.requests
    idle_ms = 1000 * (before[1] - idle_s) / _IDLE_S
    return _Served(idle_ms, 1 / load.s_per_request, cpu_ms, share * cpu_ms, client_ms)


def _cpus_of(replicas: int) -> float:
    """Return an equal part of the cores, in hundredths: Ray adds parts up."""
    return math.floor(100 * (os.cpu_count() or 1) / replicas) / 100


@contextmanager
def _serving(checkpoint: Path, replicas: int) -> Iterator[Server]:
    command: tuple[str, ...] = ("-m", "app", "serve")
    if replicas:
        cpus = str(_cpus_of(replicas))
        command += ("--ray", "--replicas", str(replicas), "--cpus-per-replica", cpus)
    environment = {**_variables(checkpoint), "SIGLIP_PORT": str(_PORT)}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with running_server(command, environment, _PORT, "/readyz", log) as server:
            if replicas:
                _wait_for_all(log)
            yield server


def _wait_for_all(log: Path) -> None:
    """Wait until all replicas are there; HAProxy, until it knows, closes connections."""
    give_up_at = time.monotonic() + _START_S
    while "replicas are ready" not in log.read_text():
        if time.monotonic() > give_up_at:
            raise RuntimeError(f"the replicas did not get ready:\n{log.read_text()[-2000:]}")
        time.sleep(0.2)


class _Embedded(NamedTuple):
    """What a run took, in seconds: of time, and of CPU."""

    time_s: float
    cpu_s: float


def _measure_bulk(bench: _Bench, few: int, many: int) -> None:
    """What few images take is most of it the start; the rate is that of the others."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        folders = {count: _written_images(out / f"images-{count}", count) for count in (few, many)}
        rounds = [
            [
                [_embed(bench, folder, out, workers) for folder in folders.values()]
                for workers in bench.counts
            ]
            for _ in range(bench.rounds)
        ]
    for workers, runs in enumerate(zip(*rounds, strict=True)):
        of_few, of_many = (min(same) for same in zip(*runs, strict=True))
        per_s = (many - few) / (of_many.time_s - of_few.time_s)
        cpu_ms = 1000 * (of_many.cpu_s - of_few.cpu_s) / (many - few)
        rows.append(
            {
                "workers": f"Ray, {workers}" if workers else "one process",
                "CPUs each": _cpus_of(2 * workers) if workers else None,
                "images/s": per_s,
                "CPU, ms": cpu_ms,
                "start, s": of_few.time_s - few / per_s,
                f"{many} images, s": of_many.time_s,
            }
        )
        bench.report.find(f"scale.bulk.{workers}.images_per_s", per_s)
        bench.report.find(f"scale.bulk.{workers}.cpu_ms", cpu_ms)
    bench.report.add_table(f"{bench.model}, JPEGs of 640x480 into Parquet", rows)


def _written_images(folder: Path, count: int) -> Path:
    folder.mkdir()
    jpeg = _jpeg()
    for number in range(count):
        (folder / f"{number:06}.jpg").write_bytes(jpeg)
    return folder


def _embed(bench: _Bench, images: Path, out: Path, workers: int) -> _Embedded:
    """Embed a folder and return what that took."""
    command = [sys.executable, "-m", "app", "embed", "--quiet", str(images)]
    if workers:
        cpus = str(_cpus_of(2 * workers))
        command += ["--ray", "--workers", str(workers), "--cpus-per-worker", cpus]
    with tempfile.TemporaryDirectory(dir=out) as folder:
        output = Path(folder, "vectors" if workers else "vectors.parquet")
        start, cpu_s = time.monotonic(), 0.0
        variables = os.environ | _variables(bench.checkpoint)
        process = subprocess.Popen([*command, "-o", str(output)], env=variables, cwd=ROOT)
        while process.poll() is None:
            cpu_s = max(cpu_s, cpu_s_of(process.pid))  # Ray's processes end before their parent
            time.sleep(_LOOK_EVERY_S)
        if process.returncode:
            raise RuntimeError(f"the command ended with {process.returncode}")
        return _Embedded(time.monotonic() - start, cpu_s)


def _variables(checkpoint: Path) -> dict[str, str]:
    return {
        "SIGLIP_MODEL": str(checkpoint),
        "SIGLIP_DEVICE": "cpu",
        "SIGLIP_TEXT": "off",
        "SIGLIP_QUEUE_IMAGES": "256",
    }


if __name__ == "__main__":
    main()
