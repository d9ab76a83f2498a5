"""How far it is: a bar on a terminal, a line of the log now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOBase
from pathlib import Path
from typing import Any, TextIO

import structlog
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from app.bulk.left_out import LeftOut
from app.engine.protocol import Modality
from app.observe.logs import redirected_logs

_log = structlog.get_logger(__name__)

_LOG_EVERY_S = 10.0


class Tally:
    """Images or texts that are done, and how many failed; seconds since the first began."""

    def __init__(self, total: int, modality: Modality = "image") -> None:
        self.total = total
        self.noun = f"{modality}s"
        self.done = 0
        self.failed = 0
        self._started_at = time.monotonic()

    def count(self, *, failed: bool) -> None:
        """Count one."""
        self.done += 1
        self.failed += failed

    @property
    def seconds(self) -> float:
        """Seconds until now."""
        return time.monotonic() - self._started_at

    @property
    def per_s(self) -> float:
        """Mean rate until now."""
        return self.done / max(self.seconds, 1e-9)


class _Rate(ProgressColumn):
    def __init__(self, noun: str) -> None:
        self._noun = noun
        super().__init__()

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.1f} {self._noun}/s", style="progress.data.speed")


@contextmanager
def shown_progress(tally: Tally, *, quiet: bool = False) -> Iterator[Callable[[], None]]:
    """Show a tally for the block's length, unless `quiet`; call the result after each."""
    console = _console()
    if quiet:
        yield lambda: None
    elif console.is_terminal:
        with (
            Progress(
                BarColumn(),
                MofNCompleteColumn(),
                _Rate(tally.noun),
                TimeRemainingColumn(),
                TextColumn("left, {task.fields[failed]} failed"),
                console=console,
                refresh_per_second=4,
            ) as bar,
            redirected_logs(_AboveBar(bar.console)),
        ):
            task = bar.add_task("", total=tally.total, failed=0)
            yield lambda: bar.update(task, completed=tally.done, failed=tally.failed)
    else:
        yield _log_now_and_then(tally)


def tell_result(tally: Tally, left_out: LeftOut | None, output: Path, *, in_output: int) -> None:
    """Say what this run has done, what it left out, and how many rows the output has now.

    Nothing is said of what was left out where there are no folders.
    """
    console = _console()
    if console.is_terminal:
        reasons = left_out.in_words() if left_out else ""
        console.print(
            f"{tally.done} {tally.noun}, {tally.failed} failed, {tally.seconds:.1f} s,"
            f" {tally.per_s:.1f} {tally.noun}/s; {in_output} in {output}"
            + (f"; left out: {reasons}" if reasons else ""),
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        return
    _log.info(
        "embedded",
        failed=tally.failed,
        seconds=round(tally.seconds, 2),
        output=str(output),
        rows=in_output,
        **_counts(tally),
        **(_told_left_out(left_out) if left_out else {}),
    )


def _log_now_and_then(tally: Tally) -> Callable[[], None]:
    logged_at = 0.0

    def tell() -> None:
        nonlocal logged_at
        if tally.seconds - logged_at < _LOG_EVERY_S:
            return
        logged_at = tally.seconds
        _log.info(
            "embedding",
            of=tally.total,
            failed=tally.failed,
            left_s=round((tally.total - tally.done) / tally.per_s),
            **_counts(tally),
        )

    return tell


def _counts(tally: Tally) -> dict[str, float]:
    return {tally.noun: tally.done, f"{tally.noun}_per_s": round(tally.per_s, 1)}


def _told_left_out(left_out: LeftOut) -> dict[str, Any]:
    return {
        "left_out": left_out.reasons.total(),
        "left_out_for": dict(left_out.reasons),
        "left_out_extensions": left_out.commonest,
    }


def _console() -> Console:
    return Console(file=_LossyFile(sys.stderr))  # type: ignore[arg-type] # it has what is used


class _AboveBar(TextIOBase):
    """What a log writes to while a bar is shown, which lines that went past it would break."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def write(self, line: str) -> int:
        self._console.print(Text.from_ansi(line.rstrip("\n")), soft_wrap=True, highlight=False)
        return len(line)


class _LossyFile:
    """A file that drops what it does not take, as a terminal that was closed does not."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
