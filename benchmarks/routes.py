"""The same image by POST /embed and by POST /v1/embeddings: what clients that exist pay for it."""

import statistics

from benchmarks.client import put_under_load
from benchmarks.messages import embeddings_request, json_request
from benchmarks.processes import Server
from benchmarks.report import Report, Row

_CONNECTIONS = 4
_ROUNDS = 9


def report_routes(report: Report, where: str, server: Server, jpeg: bytes, window_s: float) -> None:
    """Report CPU per request of both routes; they take turns, and each round has its own ratio."""
    requests = {
        "/embed": json_request("/embed", jpeg),
        "/v1/embeddings": embeddings_request("/v1/embeddings", jpeg),
    }
    cpu_ms: dict[str, list[float]] = {path: [] for path in requests}
    with server.running():
        for _ in range(_ROUNDS):
            for path, request in requests.items():
                load = put_under_load(server, request, _CONNECTIONS, window_s)
                cpu_ms[path].append(1000 * load.server_cpu_s / max(load.requests, 1))
    rows: list[Row] = [
        {"route": path, "CPU ms per request": statistics.median(values)}
        for path, values in cpu_ms.items()
    ]
    report.add_table(f"{where}: one image in JSON, {_CONNECTIONS} connections", rows)
    embed, others = cpu_ms.values()
    ratios = [other / own for own, other in zip(embed, others, strict=True)]
    report.find(f"{where}.embeddings_cpu_of_embed", statistics.median(ratios))
