"""What a run tells while it goes on, and in the end, by a clock that the test sets."""

from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from app.bulk import progress
from app.bulk.left_out import LeftOut
from app.bulk.progress import Tally, shown_progress, tell_result

LEFT_OUT = LeftOut(
    [
        ("a.TXT", "other_format"),
        ("a/b", "other_format"),
        ("c.txt", "other_format"),
        ("d", "special"),
    ]
)


@dataclass
class Clock:
    """Stands where it is put."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


class Stream(StringIO):
    """Standard error, of which it is told whether it is a terminal."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal


@pytest.fixture(autouse=True)
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    """What standard error is here: no terminal."""
    stream = Stream(is_terminal=False)
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return stream


def test_a_line_comes_every_ten_seconds_and_says_how_far_it_is_and_how_long_it_takes(
    clock: Clock,
) -> None:
    tally = Tally(total=100)
    seen = []

    with capture_logs() as lines, shown_progress(tally) as show:
        for seconds in (0.0, 4.0, 9.99, 10.0, 10.1, 19.99, 26.0, 35.99, 36.0):
            clock.now = 1000 + seconds
            tally.count(failed=seconds == 4.0)
            show()
            seen.append((seconds, len(lines)))

    assert seen == [
        (0.0, 0),
        (4.0, 0),
        (9.99, 0),
        (10.0, 1),
        (10.1, 1),
        (19.99, 1),
        (26.0, 2),  # sixteen seconds after the first: nothing was done meanwhile
        (35.99, 2),
        (36.0, 3),
    ]
    common = {"event": "embedding", "log_level": "info", "of": 100, "failed": 1}
    assert lines == [
        common | {"images": 4, "images_per_s": 0.4, "left_s": 240},
        common | {"images": 7, "images_per_s": 0.3, "left_s": 345},
        common | {"images": 9, "images_per_s": 0.2, "left_s": 364},
    ]


def test_the_last_line_says_what_was_done_and_what_was_left_out(clock: Clock) -> None:
    tally = Tally(total=3)
    for failed in (False, True, False):
        tally.count(failed=failed)
    clock.now += 2

    with capture_logs() as lines:
        tell_result(tally, LEFT_OUT, Path("out.npy"), in_output=7)

    assert lines == [
        {
            "event": "embedded",
            "log_level": "info",
            "images": 3,
            "failed": 1,
            "seconds": 2.0,
            "images_per_s": 1.5,
            "output": "out.npy",
            "rows": 7,
            "left_out": 4,
            "left_out_for": {"other_format": 3, "special": 1},
            "left_out_extensions": {".txt": 2, "no extension": 1},
        }
    ]


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        (
            LEFT_OUT,
            "; left out: 3 files of other formats (.txt 2, no extension 1),"
            " 1 pipes, sockets or devices\n",
        ),
        (LeftOut(), "\n"),
    ],
)
def test_a_terminal_gets_it_in_words(
    clock: Clock, stream: Stream, left_out: LeftOut, said: str
) -> None:
    stream.is_terminal = True
    tally = Tally(total=1)
    tally.count(failed=False)
    clock.now += 2

    tell_result(tally, left_out, Path("[red]out.npy"), in_output=7)

    assert stream.getvalue() == (
        "1 images, 0 failed, 2.0 s, 0.5 images/s; 7 in [red]out.npy" + said
    )


def test_a_terminal_that_was_closed_ends_nothing(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: str) -> int:
        raise OSError(5, "Input/output error")

    stream.is_terminal = True
    monkeypatch.setattr(stream, "write", fail)
    monkeypatch.setattr(stream, "flush", fail)
    tally = Tally(total=1)

    with shown_progress(tally) as show:
        tally.count(failed=False)
        show()
    tell_result(tally, LEFT_OUT, Path("out.npy"), in_output=1)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_quiet_run_shows_no_progress_and_how_it_ended(
    clock: Clock, stream: Stream, is_terminal: bool
) -> None:
    stream.is_terminal = is_terminal
    tally = Tally(total=3)

    with capture_logs() as lines:
        with shown_progress(tally, quiet=True) as show:
            for _ in range(3):
                clock.now += 100
                tally.count(failed=False)
                show()
        assert (lines, stream.getvalue()) == ([], "")
        tell_result(tally, LEFT_OUT, Path("out.npy"), in_output=3)

    told = stream.getvalue() if is_terminal else str(lines)
    assert "out.npy" in told
    assert ".txt" in told
