"""Log lines of our own and of libraries, as one JSON object each."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from app.observe.logs import configure_logs


def fail(message: str) -> None:
    """Raise what a test wants to see logged."""
    raise RuntimeError(message)


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """Return what was logged, one JSON object a line."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_own_and_foreign_lines_have_one_shape(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    structlog.get_logger("own").info("ours", images=3)
    logging.getLogger("library").warning("theirs %d", 4)

    ours, theirs = lines_of(capsys)

    assert ours.pop("timestamp")
    assert theirs.pop("timestamp")
    assert ours == {"event": "ours", "images": 3, "level": "info", "logger": "own"}
    assert theirs == {"event": "theirs 4", "level": "warning", "logger": "library"}


def test_an_exception_stays_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    try:
        fail("first\nsecond")
    except RuntimeError:
        structlog.get_logger("own").exception("failed")
        logging.getLogger("library").exception("failed too")

    for line in lines_of(capsys):
        assert "RuntimeError: first\nsecond" in str(line["exception"])


def test_a_hostile_message_stays_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    structlog.get_logger("own").info('a\n{"level": "critical"}\x1b[31m', key="\u2028\r\n")

    (line,) = lines_of(capsys)

    assert line["level"] == "info"


def test_lines_carry_the_request_id_that_is_bound(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        structlog.get_logger("own").info("ours")
        logging.getLogger("library").warning("theirs")

    assert [line["request_id"] for line in lines_of(capsys)] == ["r-1", "r-1"]


def test_lines_below_the_level_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("warning", "json")
    structlog.get_logger("own").info("ours")
    structlog.get_logger("own").error("loud")

    assert [line["event"] for line in lines_of(capsys)] == ["loud"]


@pytest.mark.parametrize(
    "library",
    ["httpx", "httpcore.connection", "httpx2", "httpcore2", "python_multipart.multipart"],
)
def test_libraries_that_chatter_are_kept_short(
    capsys: pytest.CaptureFixture[str], library: str
) -> None:
    configure_logs("debug", "json")
    logging.getLogger(library).info("chatter")
    logging.getLogger(library).warning("of what a stranger sent")
    logging.getLogger(library).error("trouble")

    assert [line["event"] for line in lines_of(capsys)] == ["trouble"]


def test_the_hub_client_writes_nothing_beside_our_lines() -> None:
    """In a process of its own: the client sets up its logging once, when it is first imported."""
    script = (
        "from app.observe.logs import configure_logs\n"
        "configure_logs('info', 'json')\n"
        "from huggingface_hub import file_download\n"
        "file_download.logger.warning('cut off')\n"
    )
    written = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = written.stdout.splitlines()
    assert json.loads(line)["event"] == "cut off"
    assert written.stderr == ""


def test_the_console_form_shows_no_local_values(capsys: pytest.CaptureFixture[str]) -> None:
    """They may be whole images, or secrets, and drawing them takes seconds."""
    configure_logs("info", "console")
    local_value = "".join(["private", "-", "marker"])
    try:
        fail(str(len(local_value)))
    except RuntimeError:
        structlog.get_logger("own").exception("failed")

    shown = capsys.readouterr().out
    assert "failed" in shown
    assert local_value not in shown
