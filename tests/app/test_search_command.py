"""`python -m app search` as a process: what it prints, where, and how it ends."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from app.__main__ import cli
from tests.app.bulk.bulk_runs import run_bulk, write_colours
from tests.app.fake_embedder import LOSES_DEVICE
from tests.app.images import truncated_jpeg

REPOSITORY = Path(__file__).parents[2]
_END_S = 90
_WITH_FAKES = """
import sys, app.main
from tests.app.fake_embedder import FakeEmbedder
from tests.app.fake_text_embedder import FakeTextEmbedder
app.main.load_model = lambda _: FakeEmbedder()
app.main.load_texts = lambda *_: FakeTextEmbedder()
from app.__main__ import cli
cli(sys.argv[1:])
"""
_WITHOUT_PYARROW = "import sys; sys.modules['pyarrow'] = None" + _WITH_FAKES
ESCAPE = "\x1b[31m\u202egnp.png"


def start(
    *arguments: str | Path, code: str | None = _WITH_FAKES, **options: Any
) -> subprocess.Popen[str]:
    """Start the command with the fakes, or as it is where there is no `code`."""
    defaults: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        [sys.executable, *(("-c", code) if code else ("-m", "app")), "search", *arguments],
        cwd=REPOSITORY,
        **defaults | options,
    )


def run(*arguments: str | Path, **options: Any) -> tuple[int, str, str]:
    """Run the command; return exit code, standard output, standard error."""
    with start(*arguments, **options) as process:
        output, errors = process.communicate(timeout=_END_S)
    return process.returncode, output, errors


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    (red,) = write_colours(folder, range(10, 11))
    red.rename(folder / ESCAPE)
    write_colours(folder, range(20, 60, 10))
    (folder / "bad.jpg").write_bytes(truncated_jpeg())
    return folder


@pytest.fixture(scope="module")
def index(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("index") / "index.parquet"
    assert run_bulk(photos, path) == 1
    return path


def test_a_program_gets_json_lines_and_nothing_else(photos: Path, index: Path) -> None:
    code, output, errors = run(index, "--image", photos / "040.png", "-k", "2")

    assert (code, errors) == (0, "")
    found = [json.loads(line) for line in output.splitlines()]
    assert found[0] == {
        "rank": 1,
        "score": pytest.approx(1, abs=1e-6),
        "path": str(photos / "040.png"),
    }
    assert [image["rank"] for image in found] == [1, 2]


def test_a_text_finds_images(photos: Path, index: Path) -> None:
    code, output, _ = run(index, "--text", "ab", "-k", "1")

    assert code == 0
    assert json.loads(output)["path"] == str(photos / "050.png")


def test_logs_go_to_standard_error_where_they_are_asked_for(photos: Path, index: Path) -> None:
    environment = os.environ | {"SIGLIP_LOG_LEVEL": "info"}

    code, output, errors = run(index, "--image", photos / "040.png", env=environment)

    assert code == 0
    assert {"rank"} == {next(iter(json.loads(line))) for line in output.splitlines()}
    assert "ready" in [json.loads(line)["event"] for line in errors.splitlines()]


def run_on_terminal(*arguments: str | Path) -> str:
    reading, writing = pty.openpty()
    with start(*arguments, stdout=writing) as process:
        os.close(writing)
        assert process.wait(_END_S) == 0
    output = os.read(reading, 2**16).decode()
    os.close(reading)
    return output


def test_a_person_gets_a_table_in_which_names_do_nothing(photos: Path, index: Path) -> None:
    lines = run_on_terminal(index, "--image", photos / ESCAPE, "-k", "2").splitlines()

    assert lines[0].split() == ["rank", "score", "path"]
    assert lines[1].split()[:2] == ["1", "1.0000"]
    assert lines[1].endswith(r"\x1b[31m\u202egnp.png")
    assert len(lines) == 3


def test_a_person_gets_json_lines_where_they_are_asked_for(photos: Path, index: Path) -> None:
    output = run_on_terminal(index, "--image", photos / "020.png", "--json", "-k", "1")

    assert json.loads(output)["rank"] == 1


def test_a_reader_that_has_had_enough_is_no_error(photos: Path, index: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code, _, errors = run(index, "--image", photos / "020.png", stdout=writing)
    os.close(writing)

    assert (code, errors) == (141, "")


def test_results_that_find_no_room_are_told(photos: Path, index: Path) -> None:
    with Path("/dev/full").open("w") as full:
        code, _, errors = run(index, "--image", photos / "020.png", stdout=full)

    assert (code, errors) == (2, "the results cannot be written: no space left on device\n")


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["--image", "{photos}/bad.jpg"], 1, "the query has no vector: the JPEG ends early"),
        (["--image", "{photos}/missing.png"], 2, "no such file"),
        (["--image", "{photos}/020.png", "--text", "a"], 2, "either --image or --text"),
        ([], 2, "either --image or --text"),
        (["--text", "!"], 1, "the query has no vector"),
        (["--image", "{photos}/loses.png"], 70, "the query has no vector"),
    ],
)
def test_the_exit_code_says_whose_fault_it_is(
    photos: Path, index: Path, arguments: list[str], code: int, reason: str
) -> None:
    Image.new("RGB", (4, 4), (LOSES_DEVICE, 0, 0)).save(photos / "loses.png")
    ended, output, errors = run(index, *(text.format(photos=photos) for text in arguments))

    assert (ended, output) == (code, "")
    assert reason in errors


@pytest.mark.parametrize("count", ["0", "1001"])
def test_a_count_out_of_range_is_refused(count: str) -> None:
    ended = CliRunner().invoke(cli, ["search", "index.parquet", "--text", "a", "-k", count])

    assert ended.exit_code == 2
    assert "-k" in ended.stderr


def test_a_search_without_pyarrow_says_what_to_install(photos: Path, index: Path) -> None:
    code, output, errors = run(index, "--image", photos / "020.png", code=_WITHOUT_PYARROW)

    assert (code, output, errors) == (2, "", "a search needs pyarrow: pip install pyarrow\n")


def test_a_model_that_cannot_be_loaded_ends_as_with_embed(photos: Path, index: Path) -> None:
    missing = photos / "no-model"

    code, output, errors = run(
        index, "--image", photos / "020.png", "--model", str(missing), code=None
    )

    assert (code, output) == (3, "")
    assert json.loads(errors.splitlines()[-1])["event"] == "cannot start"
