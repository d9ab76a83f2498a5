"""What the process counts, in Prometheus' terms; `GET /metrics` shows it.

Label values come from fixed sets, never from a client: each new value is a new series for ever.
"""

from functools import cache
from typing import Literal

from prometheus_client import Counter, Histogram, disable_created_metrics

# A second series for each, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]

_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST"})
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_POWERS_OF_TWO = tuple(2**power for power in range(11))

_REQUEST_SECONDS = Histogram(
    "http_server_request_duration_seconds",
    "Seconds from a request's head to the end of its answer.",
    ("http_request_method", "http_route", "http_response_status_code"),
    buckets=_SECONDS,
)
_REJECTED = Counter(
    "siglip_requests_rejected",
    "Requests answered with an error, by its code; also those that failed for one of their images.",
    ("reason",),
)
_STAGE_SECONDS = Histogram(
    "siglip_stage_duration_seconds",
    "Seconds that answered requests spent in each stage.",
    ("stage", "kind"),
    buckets=_SECONDS,
)
_OUTCOMES = {
    item: Counter(
        f"siglip_{item}s",
        f"{item.title()}s taken in: embedded, failed by themselves, or dropped with their request.",
        ("outcome",),
    )
    for item in ("image", "text")
}
_ERRORS = {
    item: Counter(f"siglip_{item}_errors", f"{item.title()}s that failed, by code.", ("code",))
    for item in ("image", "text")
}

requests_cancelled = Counter(
    "siglip_requests_cancelled", "Requests whose client left before the answer."
)
batch_size = Histogram(
    "siglip_batch_size", "Images, or texts, in a batch.", ("kind",), buckets=_POWERS_OF_TWO
)


# To find a series by its labels takes longer than to count.
@cache
def _request_seconds(method: str, route: str, status: int) -> Histogram:
    return _REQUEST_SECONDS.labels(method, route, status)


@cache
def _rejected(code: str) -> Counter:
    return _REJECTED.labels(code)


def known_method(method: str) -> str:
    """Return a method that this service knows as it is, and any other as one word."""
    return method if method in _METHODS else "_OTHER"


def count_request(method: str, route: str | None, status: int, seconds: float) -> None:
    """Count an answered request, by `known_method` and the route's template, if one matched."""
    _request_seconds(method, route or "", status).observe(seconds)


def count_rejection(code: str) -> None:
    """Count a request that was refused, or failed, as a whole."""
    _rejected(code).inc()


def count_items(
    item: Literal["image", "text"], embedded: int, error_codes: list[str], dropped: int
) -> None:
    """Count the images or texts of one request that is over."""
    for outcome, count in (
        ("embedded", embedded),
        ("failed", len(error_codes)),
        ("dropped", dropped),
    ):
        _OUTCOMES[item].labels(outcome).inc(count)
    for code in error_codes:
        _ERRORS[item].labels(code).inc()


def count_stages(stage_s: dict[str, float], item: Literal["image", "text"] = "image") -> None:
    """Count the seconds of an answered request for images or texts, stage by stage."""
    for stage, seconds in stage_s.items():
        _STAGE_SECONDS.labels(stage, item).observe(seconds)
