"""The same image by POST /embed, and by the routes of others' clients and of labels: CPU of these.

A service with both towers; requests of one kind after the other take turns, and each round has its
own ratios. Labels are the same in all requests, as a classifier's are, so they are remembered.
"""

import statistics
import tempfile
from pathlib import Path
from urllib.parse import urlencode

from benchmarks.client import put_under_load
from benchmarks.messages import embeddings_request, json_request, raw_request
from benchmarks.processes import free_port, running_server
from benchmarks.report import Report, Row
from benchmarks.text_material import written_text_checkpoints

_CONNECTIONS = 4
_LABELS = ("a cat", "a dog", "a bicycle", "a house", "a tree")
_EMBED, _EMBED_RAW = "/embed, JSON", "/embed, raw body"
_EMBEDDINGS, _CLASSIFY = "/v1/embeddings, data URI", "/classify, JSON"
_CLASSIFY_RAW = "/classify, raw body"
# What each is to be held against: a request with the same bytes of an image in the same form.
_RATIOS = {
    "embeddings_cpu_of_embed": (_EMBEDDINGS, _EMBED),
    "embeddings_cpu_of_raw_embed": (_EMBEDDINGS, _EMBED_RAW),
    "classify_cpu_of_embed": (_CLASSIFY, _EMBED),
    "raw_classify_cpu_of_embed": (_CLASSIFY_RAW, _EMBED_RAW),
}


def report_routes(report: Report, shape: str, jpeg: bytes, window_s: float, rounds: int) -> None:
    """Report the CPU of the service's processes per request of each kind, and ratios of them."""
    requests = _requests(jpeg)
    cpu_ms: dict[str, list[float]] = {kind: [] for kind in requests}
    with written_text_checkpoints(shape) as checkpoints, tempfile.TemporaryDirectory() as logs:
        environment = {
            "SIGLIP_MODEL": str(checkpoints.siglip2),
            "SIGLIP_DEVICE": "cpu",
            "SIGLIP_TEXT": "on",
            "SIGLIP_PORT": str(port := free_port()),
            "SIGLIP_QUEUE_IMAGES": "256",  # a busy machine works few off in three seconds
        }
        command, log = ("-m", "app", "serve"), Path(logs) / "log"
        with running_server(command, environment, port, "/readyz", log) as server:
            for _ in range(rounds):
                for kind, request in requests.items():
                    load = put_under_load(server, request, _CONNECTIONS, window_s)
                    cpu_ms[kind].append(1000 * load.server_cpu_s / max(load.requests, 1))
    _report(report, shape, cpu_ms)


def _requests(jpeg: bytes) -> dict[str, bytes]:
    labels = urlencode([("labels", label) for label in _LABELS])
    return {
        _EMBED: json_request("/embed", jpeg),
        _EMBEDDINGS: embeddings_request("/v1/embeddings", jpeg),
        _CLASSIFY: json_request("/classify", jpeg, labels=_LABELS),
        _EMBED_RAW: raw_request("/embed", jpeg),
        _CLASSIFY_RAW: raw_request(f"/classify?{labels}", jpeg),
    }


def _report(report: Report, shape: str, cpu_ms: dict[str, list[float]]) -> None:
    rows: list[Row] = [
        {
            "request": kind,
            "CPU ms": statistics.median(values),
            "least": min(values),
            "most": max(values),
        }
        for kind, values in cpu_ms.items()
    ]
    title = f"{shape}: one 640x480 JPEG, {len(_LABELS)} labels, {_CONNECTIONS} connections"
    report.add_table(f"{title}, median of {len(cpu_ms[_EMBED])} rounds", rows)
    size = shape.partition("-")[0]
    for name, (other, own) in _RATIOS.items():
        ratios = [a / b for a, b in zip(cpu_ms[other], cpu_ms[own], strict=True)]
        report.find(f"serving.{size}.{name}", statistics.median(ratios))
