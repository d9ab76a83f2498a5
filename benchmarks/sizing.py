"""What a model takes on this machine: memory, and processor time for an image.

`python -m benchmarks.sizing [--shapes base-patch16-224 ...] [--quick]`

The memory is the main process's, which holds the model; each core adds a process that decodes.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.client import put_under_load
from benchmarks.material import encode, photograph_of_size, written_checkpoint
from benchmarks.messages import multipart_request
from benchmarks.processes import free_port, running_server
from benchmarks.report import Report, Row, show_machine

_SHAPES = ("base-patch16-224", "large-patch16-256", "so400m-patch14-384")
_IMAGES = 8  # of a request: one batch
_CONNECTIONS = 2  # one is computed while the next is decoded


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizing", description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=_SHAPES)
    parser.add_argument("--seconds", type=float, default=20, help="of load for each model")
    parser.add_argument("--quick", action="store_true", help="a short load")
    options = parser.parse_args()
    show_machine()
    report = Report("sizing")
    seconds = 5 if options.quick else options.seconds
    report.add_table("memory and time", [_measure(shape, seconds) for shape in options.shapes])
    report.save()


def _measure(shape: str, seconds: float) -> Row:
    jpeg = encode(photograph_of_size(640, 480), "JPEG", quality=90)
    request = multipart_request("/embed", [jpeg] * _IMAGES)
    port = free_port()
    environment = {"SIGLIP_PORT": str(port), "SIGLIP_DEVICE": "cpu"}
    with written_checkpoint(shape) as checkpoint, tempfile.TemporaryDirectory() as logs:
        environment["SIGLIP_MODEL"] = str(checkpoint.folder)
        command, log = ["-m", "app", "serve"], Path(logs) / "log"
        with running_server(command, environment, port, "/readyz", log) as server:
            ready = server.rss_bytes()
            load = put_under_load(server, request, _CONNECTIONS, seconds)
            return {
                "model": shape,
                "RSS once ready MB": ready / 1e6,
                "under load MB": server.rss_bytes() / 1e6,
                "most MB": server.peak_rss_bytes() / 1e6,
                "images/s": _IMAGES / load.s_per_request,
                "CPU ms an image": 1000 * load.server_cpu_s / (load.requests * _IMAGES),
            }


if __name__ == "__main__":
    main()
