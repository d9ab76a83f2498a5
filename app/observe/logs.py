"""Logs: one JSON object a line, on standard output but where that has results, or for reading."""

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import TextIOBase
from typing import Any, Literal, TextIO

import structlog
from huggingface_hub.utils.logging import get_logger as hub_client_logger
from structlog.types import EventDict, Processor

from app.observe.line_writer import LineWriter

# structlog's own renderer makes one for each line, which takes longer than to write the line.
_JSON = json.JSONEncoder(default=repr)


def configure_logs(
    level: str,
    log_format: Literal["json", "console"],
    *,
    nobody_waits: bool = False,
    stream: TextIO | None = None,
) -> None:
    """Send our logs and those of all libraries through one renderer. Call once, at start.

    They go to `stream`, by default standard output. With `nobody_waits` a reader that stalls costs
    lines and holds up nobody; see `flush_logs`.
    """
    stream = stream or sys.stdout
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[Processor] = [
        structlog.dev.ConsoleRenderer(
            colors=stream.isatty(),
            exception_formatter=structlog.dev.plain_traceback,  # the rich one shows image bytes
        )
    ]
    if log_format == "json":
        render = [structlog.processors.format_exc_info, _render_json]
    handler: logging.Handler
    if nobody_waits:
        handler = LineWriter(stream.fileno())
        structlog.configure(
            processors=shared,
            logger_factory=partial(_OwnLines, render),
            wrapper_class=structlog.make_filtering_bound_logger(level),
            cache_logger_on_first_use=True,
        )
    else:
        handler = logging.StreamHandler(stream)
        structlog.configure(
            processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
            logger_factory=structlog.stdlib.LoggerFactory(),
            wrapper_class=structlog.stdlib.BoundLogger,
            cache_logger_on_first_use=True,
        )
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)
    # Below that level they tell URLs with secrets in them, the hub's signed ones at level info, and
    # what strangers sent: texts inside images, which byte of a form is wrong.
    for library in ("httpx", "httpcore", "httpx2", "httpcore2", "PIL", "python_multipart"):
        logging.getLogger(library).setLevel(max(root.level, logging.ERROR))
    # Imported, it gave itself a handler, which writes each line once more, raw, to standard error.
    hub_client_logger().handlers.clear()


class _OwnLines:
    """Where our own lines end when nobody waits: written without a record of the library's.

    The record, its way through handlers and back to structlog take most of what a line costs.
    """

    def __init__(self, render: Sequence[Processor], name: str = "") -> None:
        self.name = name
        self._render = render
        self.debug = self.info = self.warning = self.error = self.critical = self._write

    def _write(self, **fields: Any) -> None:
        for writer in logging.getLogger().handlers:
            if isinstance(writer, LineWriter):
                try:
                    line: Any = fields
                    for step in self._render:
                        line = step(self, "", line)
                except Exception:  # noqa: BLE001 # what cannot be told is no fault of who tells it
                    writer.drop(1)
                else:
                    writer.put_line(line)


def _render_json(_: object, __: str, fields: EventDict) -> str:
    return _JSON.encode(fields)


@contextmanager
def redirected_logs(stream: TextIOBase) -> Iterator[None]:
    """Have lines that would go to a terminal written to `stream`, one a call, within the block.

    What goes to a file or a pipe still does.
    """
    handlers = [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and _is_terminal(handler.stream)
    ]
    before = [handler.setStream(stream) for handler in handlers]
    try:
        yield
    finally:
        for handler, own in zip(handlers, before, strict=True):
            handler.setStream(own)


def _is_terminal(stream: TextIO) -> bool:
    return not stream.closed and stream.isatty()


def flush_logs() -> None:
    """Have the last lines written, within a second: before an exit that passes Python by."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LineWriter):
            handler.flush()
