"""A log whose reader stalls, fails, or comes back."""

import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from fcntl import F_SETPIPE_SZ, fcntl
from typing import Any

import pytest
import structlog

from app.observe.line_writer import MAX_LINES, LineWriter
from app.observe.logs import configure_logs, flush_logs

WAIT_S = 30
PIPE_BYTES = 4096


class Pipe:
    """Standard output as a pipe, of the least size there is."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        fcntl(self.write_end, F_SETPIPE_SZ, PIPE_BYTES)
        self.stdout = os.fdopen(self.write_end, "w")
        self._reader = os.fdopen(self.read_end)

    def read(self) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(self._reader.readline())
        return line

    def close_reader(self) -> None:
        self._reader.close()

    def close(self) -> None:
        self.stdout.close()
        self._reader.close()


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    pipe = Pipe()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", pipe.stdout)
        configure_logs("info", "json", nobody_waits=True)
    yield pipe
    flush_logs()
    pipe.close()


def test_lines_come_in_order_and_with_what_was_bound_where_they_were_logged(pipe: Pipe) -> None:
    for number in range(20):
        with structlog.contextvars.bound_contextvars(request_id=f"r-{number}"):
            structlog.get_logger("own").info("ours", number=number)
            logging.getLogger("library").warning("theirs %d", number)

    for number in range(20):
        ours, theirs = pipe.read(), pipe.read()
        assert (ours["number"], ours["request_id"]) == (number, f"r-{number}")
        assert (theirs["event"], theirs["request_id"]) == (f"theirs {number}", f"r-{number}")


def test_a_reader_that_stalls_holds_up_nobody_and_is_told_what_it_missed(pipe: Pipe) -> None:
    """What is logged is many times what the pipe and the queue take."""
    count = 3 * MAX_LINES
    for number in range(count):
        structlog.get_logger("own").info("line", number=number)

    lines = [pipe.read()]
    while lines[-1]["event"] == "line":
        lines.append(pipe.read())
    *kept, dropped = lines
    assert dropped["event"] == "log lines were dropped"
    assert dropped["level"] == "warning"
    assert [line["number"] for line in kept] == list(range(len(kept)))
    assert len(kept) + dropped["lines"] == count
    assert len(kept) >= MAX_LINES

    structlog.get_logger("own").info("afterwards")
    assert pipe.read()["event"] == "afterwards"


def test_to_flush_is_to_wait_for_what_was_logged_but_not_for_ever(pipe: Pipe) -> None:
    structlog.get_logger("own").info("short")
    flush_logs()
    assert pipe.read()["event"] == "short"

    structlog.get_logger("own").info("long", text="x" * 3 * PIPE_BYTES)
    flush_logs()  # nobody reads; that this ends is the point
    assert pipe.read()["event"] == "long"


def test_without_a_reader_lines_are_dropped_and_nothing_else_happens(
    pipe: Pipe, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe.close_reader()
    structlog.get_logger("own").info("nobody listens")
    flush_logs()

    assert capsys.readouterr() == ("", "")


def test_a_file_that_others_have_made_non_blocking_is_waited_for(pipe: Pipe) -> None:
    os.set_blocking(pipe.write_end, False)
    texts = [str(number) * PIPE_BYTES for number in range(9)]
    for text in texts:
        structlog.get_logger("own").info("long", text=text)

    assert [pipe.read()["text"] for _ in texts] == texts


def test_a_line_that_cannot_be_formatted_is_no_fault_of_its_caller(
    pipe: Pipe, capsys: pytest.CaptureFixture[str]
) -> None:
    (writer,) = (one for one in logging.getLogger().handlers if isinstance(one, LineWriter))
    writer.handle(logging.makeLogRecord({"msg": "%d", "args": ("not a number",)}))
    structlog.get_logger("own").info("next")

    assert pipe.read()["event"] == "next"
    assert pipe.read()["lines"] == 1
    assert capsys.readouterr().err == ""


def test_own_lines_have_the_shape_that_they_have_without_it(pipe: Pipe) -> None:
    log = structlog.get_logger("own")
    log.debug("below the level")
    try:
        raise RuntimeError("first\nsecond")  # noqa: TRY301 # for its traceback
    except RuntimeError:
        log.exception("failed", images=3)
    log.log(logging.WARNING, "as told")

    failed, told = pipe.read(), pipe.read()
    assert failed.pop("timestamp")
    assert "RuntimeError: first\nsecond" in failed.pop("exception")
    assert failed == {"event": "failed", "images": 3, "level": "error", "logger": "own"}
    assert told.pop("timestamp")
    assert told == {"event": "as told", "level": "warning", "logger": "own"}


def test_an_own_line_that_cannot_be_rendered_is_no_fault_of_its_caller(pipe: Pipe) -> None:
    class Shy:
        def __repr__(self) -> str:
            raise RuntimeError("I would rather not")

    structlog.get_logger("own").info("shy", value=Shy())
    structlog.get_logger("own").info("next")

    assert pipe.read()["event"] == "next"
    assert pipe.read()["lines"] == 1


def test_the_thread_that_writes_does_not_keep_the_process() -> None:
    read_end, write_end = os.pipe()
    before = set(threading.enumerate())
    LineWriter(write_end).flush()
    (thread,) = set(threading.enumerate()) - before

    assert thread.daemon
    os.close(read_end)
    os.close(write_end)
