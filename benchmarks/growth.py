"""How the cost of a request grows with its images and with what is asked of each."""

from benchmarks.client import time_requests
from benchmarks.messages import multipart_request
from benchmarks.processes import Server
from benchmarks.report import Row
from benchmarks.timing import Timing

_FORMS: tuple[tuple[str, dict[str, str]], ...] = (
    ("pooled", {}),
    ("patches", {"output": "patches"}),
    ("patches base64", {"output": "patches", "encoding": "base64"}),
)
_REPEATS = 3


def growth_rows(server: Server, jpeg: bytes, largest_request: int) -> list[Row]:
    """Time requests of 1, 2, 4, ... images, one after another: milliseconds per request."""
    sizes = [2**n for n in range(largest_request.bit_length())]
    with server.running():
        return [_row(server, jpeg, size) for size in sizes]


def _row(server: Server, jpeg: bytes, images: int) -> Row:
    row: dict[str, str | float | int | None] = {"images": images}
    for name, options in _FORMS:
        request = multipart_request("/embed", [jpeg] * images, **options)
        timing = Timing(tuple(time_requests(server, request, _REPEATS)))
        row[f"{name}, ms"] = timing.low_s * 1000
        row[f"{name}, ms per image"] = timing.low_s * 1000 / images
    return row
