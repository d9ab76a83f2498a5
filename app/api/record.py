"""What is known of one request, gathered where it becomes known, for its one line in the log."""

import secrets
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from app.observe.work import Work

_KEY = "record"


@dataclass(slots=True, eq=False)
class RequestRecord:
    """One request: its id, when it came, was read and was over, what it cost, and how it ended.

    No field holds anything of its input. Times are `time.monotonic()` seconds.
    """

    request_id: str = field(default_factory=partial(secrets.token_hex, 16))
    started_at: float = field(default_factory=time.monotonic)
    read_at: float | None = None
    """When all of it had been read and understood; None for what never was."""
    ended_at: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    route: str | None = None
    """The template of the route that it came to, once one has matched."""
    status: int = 0
    """Of the answer; 0 until that begins."""
    code: str | None = None
    """Of the error that it was answered with."""
    work: Work = field(default_factory=Work)

    def describe(self) -> dict[str, object]:
        """Return what a log line tells of it: only what applies, times in milliseconds."""
        fields: dict[str, object] = {"status": self.status}
        for name in ("code", "bytes_in", "bytes_out"):
            if value := getattr(self, name):
                fields[name] = value
        for name in ("images", "texts"):
            if count := getattr(self.work, name):
                fields[name] = count
        if self.read_at is not None:
            fields["read_ms"] = in_ms(self.read_at - self.started_at)
        for stage, seconds in self.work.stage_s.items():
            fields[f"{stage}_ms"] = in_ms(seconds)
        return fields


def in_ms(seconds: float) -> float:
    """Return seconds as milliseconds, as exact as anybody reads them."""
    return round(seconds * 1000, 1)


def keep_record(scope: MutableMapping[str, Any], record: RequestRecord) -> None:
    """Put a request's record where whoever serves it finds it."""
    scope.setdefault("state", {})[_KEY] = record


def find_record(scope: Mapping[str, Any]) -> RequestRecord:
    """Return a request's record, or a new one where the guard has not seen the request."""
    record = scope.get("state", {}).get(_KEY)
    return record if isinstance(record, RequestRecord) else RequestRecord()
