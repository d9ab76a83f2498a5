"""Replicas and workers on Ray against the single process: rates, and what they cost in CPU.

On a machine whose cores one process keeps busy, replicas cannot be faster: what is seen there is
what HAProxy and Ray cost. Needs the extra `ray`.

`python -m benchmarks.scale [--only serve|bulk] [--most 4] [--seconds 20] [--quick]`
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.client import put_under_load
from benchmarks.material import TINY, encode, photograph_of_size, written_checkpoint
from benchmarks.messages import raw_request
from benchmarks.processes import ROOT, Server, running_server
from benchmarks.report import Report, Row, show_machine

_CONNECTIONS = 16
_IMAGES = 4000
# Ray's processes take ports by chance from 32768 on.
_PORT = 21_400
_START_S = 300
_SETTLE_S = 5


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--only", choices=("serve", "bulk"))
    parser.add_argument("--most", type=int, default=4, help="replicas, and workers, at most")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--quick", action="store_true", help="two at most, a few seconds")
    options = parser.parse_args()
    most, seconds = (2, 5.0) if options.quick else (options.most, options.seconds)
    images = _IMAGES // 8 if options.quick else _IMAGES
    show_machine()
    report = Report("scale")
    jpeg = encode(photograph_of_size(640, 480), "JPEG", quality=90)
    with written_checkpoint(TINY) as checkpoint:
        if options.only != "bulk":
            _measure_serving(report, checkpoint.folder, jpeg, most, seconds)
        if options.only != "serve":
            _measure_bulk(report, checkpoint.folder, jpeg, most, images)
    report.save()


def _measure_serving(
    report: Report, checkpoint: Path, jpeg: bytes, most: int, seconds: float
) -> None:
    rows: list[Row] = []
    for replicas in range(most + 1):  # 0: without Ray
        with _serving(checkpoint, replicas) as server:
            load = put_under_load(server, raw_request("/embed", jpeg), _CONNECTIONS, seconds)
        cpu_ms = 1000 * load.server_cpu_s / load.requests
        name = f"Ray, {replicas}" if replicas else "one process"
        rows.append({"replicas": name, "requests/s": 1 / load.s_per_request, "CPU, ms": cpu_ms})
        report.find(f"scale.serve.{replicas}.requests_per_s", 1 / load.s_per_request)
        report.find(f"scale.serve.{replicas}.cpu_ms", cpu_ms)
    report.add_table(f"{TINY}, one 640x480 JPEG a request, {_CONNECTIONS} connections", rows)


@contextmanager
def _serving(checkpoint: Path, replicas: int) -> Iterator[Server]:
    cpus = str((os.cpu_count() or 1) / max(replicas, 1))
    on_ray = ("--ray", "--replicas", str(replicas), "--cpus-per-replica", cpus)
    command = ("-m", "app", "serve", *(on_ray if replicas else ()))
    environment = {**_variables(checkpoint), "SIGLIP_PORT": str(_PORT)}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with running_server(command, environment, _PORT, "/readyz", log) as server:
            if replicas:
                _wait_for_all(log)
            yield server


def _wait_for_all(log: Path) -> None:
    """Wait until all replicas are there, and HAProxy knows: until then it closes connections."""
    give_up_at = time.monotonic() + _START_S
    while "replicas are ready" not in log.read_text():
        if time.monotonic() > give_up_at:
            raise RuntimeError(f"the replicas did not get ready:\n{log.read_text()[-2000:]}")
        time.sleep(0.2)
    time.sleep(_SETTLE_S)


def _measure_bulk(report: Report, checkpoint: Path, jpeg: bytes, most: int, images: int) -> None:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "images"
        folder.mkdir()
        for number in range(images):
            (folder / f"{number:06}.jpg").write_bytes(jpeg)
        for workers in range(most + 1):
            per_s = images / _embed(checkpoint, folder, Path(name), workers)
            label = f"Ray, {workers}" if workers else "one process"
            rows.append({"workers": label, "images/s, start and model included": per_s})
            report.find(f"scale.bulk.{workers}.images_per_s", per_s)
    report.add_table(f"{TINY}, {images} JPEGs of 640x480 into Parquet", rows)


def _embed(checkpoint: Path, images: Path, out: Path, workers: int) -> float:
    """Embed a folder and return how many seconds that took."""
    cores = os.cpu_count() or 1
    on_ray = (
        "--ray",
        "--workers",
        str(workers),
        "--cpus-per-worker",
        str(cores / 2 / max(workers, 1)),
    )
    output = out / (f"{workers}" if workers else "0.parquet")
    start = time.monotonic()
    subprocess.run(
        [
            *(sys.executable, "-m", "app", "embed", "--quiet", str(images), "-o", str(output)),
            *(on_ray if workers else ()),
        ],
        env=os.environ | _variables(checkpoint),
        cwd=ROOT,
        check=True,
    )
    return time.monotonic() - start


def _variables(checkpoint: Path) -> dict[str, str]:
    return {
        "SIGLIP_MODEL": str(checkpoint),
        "SIGLIP_DEVICE": "cpu",
        "SIGLIP_TEXT": "off",
        "SIGLIP_QUEUE_IMAGES": "256",
    }


if __name__ == "__main__":
    main()
