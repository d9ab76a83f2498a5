"""How far it is: a bar on a terminal, a line of the log now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

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

_log = structlog.get_logger(__name__)

_LOG_EVERY_S = 10.0


class Tally:
    """Images that are done, and how many of them failed; seconds since the first began."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.images = 0
        self.failed = 0
        self._started_at = time.monotonic()

    def count(self, *, failed: bool) -> None:
        """Count one image."""
        self.images += 1
        self.failed += failed

    @property
    def seconds(self) -> float:
        """Seconds until now."""
        return time.monotonic() - self._started_at

    @property
    def images_per_s(self) -> float:
        """Mean rate until now."""
        return self.images / max(self.seconds, 1e-9)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.1f} images/s", style="progress.data.speed")


@contextmanager
def shown_progress(tally: Tally) -> Iterator[Callable[[], None]]:
    """Show a tally for the length of the block; call the result after each image."""
    console = Console(stderr=True)
    if console.is_terminal:
        with Progress(
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("left, {task.fields[failed]} failed"),
            console=console,
            refresh_per_second=4,
        ) as bar:
            task = bar.add_task("", total=tally.total, failed=0)
            yield lambda: bar.update(task, completed=tally.images, failed=tally.failed)
    else:
        yield _log_now_and_then(tally)


def tell_result(tally: Tally, output: Path, *, in_output: int) -> None:
    """Say what this run has done, and how many rows the output has now."""
    console = Console(stderr=True)
    if console.is_terminal:
        console.print(
            f"{tally.images} images, {tally.failed} failed, {tally.seconds:.1f} s,"
            f" {tally.images_per_s:.1f} images/s; {in_output} in {output}",
            highlight=False,
            soft_wrap=True,
        )
        return
    _log.info(
        "embedded",
        images=tally.images,
        failed=tally.failed,
        seconds=round(tally.seconds, 2),
        images_per_s=round(tally.images_per_s, 1),
        output=str(output),
        rows=in_output,
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
            images=tally.images,
            of=tally.total,
            failed=tally.failed,
            images_per_s=round(tally.images_per_s, 1),
            left_s=round((tally.total - tally.images) / tally.images_per_s),
        )

    return tell
