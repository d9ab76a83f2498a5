"""Whether memory grows with use: RSS of the service over many requests.

`python -m benchmarks.soak [--requests 20000] [--quick]`
"""

import argparse

import numpy as np

from benchmarks.client import put_under_load
from benchmarks.material import TINY, encode, photograph_of_size, written_checkpoint
from benchmarks.report import Report, Row, show_machine
from benchmarks.services import OURS, Service, running_services

_CONNECTIONS = 16
_WINDOW_S = 2.0
_WARM_UP_REQUESTS = 500  # allocators and pools fill up to their working size


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--quick", action="store_true", help="fewer requests: a rough slope")
    options = parser.parse_args()
    show_machine()
    report = Report("soak")
    jpeg = encode(photograph_of_size(640, 480), "JPEG", quality=90)
    with (
        written_checkpoint(TINY) as checkpoint,
        running_services(checkpoint.folder, jpeg, [OURS]) as services,
        services[OURS].server.running(),
    ):
        rows = _soak(services[OURS], 3000 if options.quick else options.requests)
    report.add_table(f"{TINY}, {_CONNECTIONS} connections", rows[:: max(1, len(rows) // 10)])
    report.find("soak.mib_per_1000_requests", _slope(rows))
    report.save()


def _soak(service: Service, requests: int) -> list[Row]:
    """Load the service until all requests were answered; note memory after every window."""
    rows: list[Row] = []
    answered = 0
    while answered < requests:
        load = put_under_load(service.server, service.request, _CONNECTIONS, _WINDOW_S)
        answered += load.requests
        if answered >= _WARM_UP_REQUESTS:
            rows.append({"requests": answered, "RSS MiB": service.server.rss_bytes() / 2**20})
    return rows


def _slope(rows: list[Row]) -> float:
    requests = [float(row["requests"] or 0) for row in rows]
    mib = [float(row["RSS MiB"] or 0) for row in rows]
    return float(np.polyfit(requests, mib, 1)[0]) * 1000


if __name__ == "__main__":
    main()
