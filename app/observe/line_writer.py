"""A log that nobody waits for: lines are queued, and one thread writes them.

Who reads a service's log may stall, and a full pipe would stop every thread that has something to
say, the event loop first. Then lines are dropped, and counted.
"""

import logging
import os
import select
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue

import structlog

MAX_LINES = 4096
"""That wait to be written; a second or more of a busy service's."""
_FLUSH_S = 1.0
# For more lines to come: one write for all of them costs less than one each.
_GATHER_S = 0.005

_log = structlog.get_logger(__name__)


class LineWriter(logging.Handler):
    """Formats where a line is logged, since what is bound there belongs to it; writes elsewhere."""

    def __init__(self, file_descriptor: int) -> None:
        super().__init__()
        self._file_descriptor = file_descriptor
        self._queue: SimpleQueue[str | threading.Event] = SimpleQueue()
        self._dropped = 0
        self._dropping = threading.Lock()
        self._writer = threading.Thread(target=self._write_all, name="log-writer", daemon=True)
        self._writer.start()

    def createLock(self) -> None:  # noqa: N802 # logging's name
        """Have no lock: nothing is shared but the queue, and who holds one might be waited for."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line, or drop it when too many are waiting, or when it cannot be written."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 # logging's own handlers write about it, and wait for that
            self.drop(1)
        else:
            self.put_line(line)

    def put_line(self, line: str) -> None:
        """Queue a line as it is, or drop it when too many are waiting."""
        own = threading.current_thread() is self._writer  # which tells of dropped lines
        if own or self._queue.qsize() < MAX_LINES:
            self._queue.put(line + "\n")
        else:
            self.drop(1)

    def drop(self, lines: int) -> None:
        """Count lines that are lost, to be told once some can be written again."""
        with self._dropping:
            self._dropped += lines

    def flush(self) -> None:
        """Wait until all lines up to now are written, but not for long."""
        give_up_at = time.monotonic() + _FLUSH_S
        for _ in range(2):  # the second round is for the line that tells of dropped ones
            written = threading.Event()
            self._queue.put(written)
            written.wait(give_up_at - time.monotonic())

    def close(self) -> None:
        """Write what can be written in a moment; at the exit of Python."""
        self.flush()
        super().close()

    def _write_all(self) -> None:
        while True:
            batch = [self._queue.get()]
            if isinstance(batch[0], str):
                time.sleep(_GATHER_S)
            with suppress(Empty):
                while len(batch) < MAX_LINES:
                    batch.append(self._queue.get_nowait())
            self._write([line for line in batch if isinstance(line, str)])
            for flushed in batch:
                if isinstance(flushed, threading.Event):
                    flushed.set()

    def _write(self, lines: list[str]) -> None:
        left = memoryview("".join(lines).encode(errors="backslashreplace"))
        try:
            while left:
                left = left[self._write_some(left) :]
        except OSError:  # a full disk, a reader that is gone
            self.drop(len(lines))
        else:
            if lines and self._dropped:
                with self._dropping:
                    dropped, self._dropped = self._dropped, 0
                _log.warning("log lines were dropped", lines=dropped)

    def _write_some(self, data: memoryview) -> int:
        try:
            return os.write(self._file_descriptor, data)
        except BlockingIOError:  # whoever shares the file has made it so
            select.select([], [self._file_descriptor], [])
            return 0
