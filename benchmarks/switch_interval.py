"""Whether the service gains when the interpreter's lock changes hands sooner than after 5 ms.

`python -m benchmarks.switch_interval [--shape tiny-patch16-224] [--connections 16] [--rounds 8]`

Services that differ in `sys.setswitchinterval` alone take turns under the same load.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.client import Load, put_under_load
from benchmarks.material import TINY, encode, photograph_of_size
from benchmarks.messages import raw_request
from benchmarks.processes import Server, free_port, running_server
from benchmarks.report import Report, Row, show_machine
from benchmarks.timing import quantile

_INTERVALS_S = (0.005, 0.0005)
_WINDOW_S = 4.0
_PROGRAM = """
import runpy, sys
sys.setswitchinterval({interval_s})
sys.argv = ["app", "serve"]
runpy.run_module("app", run_name="__main__")
"""


def main() -> None:
    """Measure and report."""
    options = _parse_options()
    show_machine()
    request = raw_request("/embed", encode(photograph_of_size(640, 480), "JPEG", quality=90))
    loads: dict[float, list[Load]] = {interval_s: [] for interval_s in _INTERVALS_S}
    with tempfile.TemporaryDirectory(prefix="siglip-bench-") as folder, ExitStack() as running:
        servers = {
            interval_s: running.enter_context(_service(options.shape, interval_s, Path(folder)))
            for interval_s in _INTERVALS_S
        }
        for turn in range(options.rounds):
            for interval_s in _INTERVALS_S[:: 1 - 2 * (turn % 2)]:
                server = servers[interval_s]
                with server.running():
                    load = put_under_load(server, request, options.connections, _WINDOW_S)
                loads[interval_s].append(load)
    report = Report("switch_interval")
    title = f"{options.shape}, {options.connections} connections, {options.rounds} rounds"
    report.add_table(title, [_row(interval_s, own) for interval_s, own in loads.items()])
    report.save()


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.switch_interval")
    parser.add_argument("--shape", default=TINY)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=8)
    return parser.parse_args()


@contextmanager
def _service(shape: str, interval_s: float, folder: Path) -> Iterator[Server]:
    """Start a service, which is paused."""
    port = free_port()
    environment = {
        "SIGLIP_MODEL": f"random:{shape}",
        "SIGLIP_DEVICE": "cpu",
        "SIGLIP_PORT": str(port),
        "SIGLIP_QUEUE_IMAGES": "256",
        "SIGLIP_LOG_LEVEL": "error",
    }
    command = ("-c", _PROGRAM.format(interval_s=interval_s))
    log = folder / f"{interval_s}.log"
    with running_server(command, environment, port, "/readyz", log) as server:
        server.pause()
        yield server


def _row(interval_s: float, loads: Sequence[Load]) -> Row:
    latencies_s = [latency_s for load in loads for latency_s in load.latencies_s]
    cpu_ms = [1000 * load.server_cpu_s / max(load.requests, 1) for load in loads]
    return {
        "switch interval ms": 1000 * interval_s,
        "requests/s": 1 / quantile([load.s_per_request for load in loads], 0.25),
        "CPU ms per request": quantile(cpu_ms, 0.25),
        "p50 ms": 1000 * quantile(latencies_s, 0.5),
        "p99 ms": 1000 * quantile(latencies_s, 0.99),
        "requests": len(latencies_s),
    }


if __name__ == "__main__":
    main()
