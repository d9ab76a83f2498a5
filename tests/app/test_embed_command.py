"""`python -m app embed` as a process: the vectors are those of HTTP, and none is lost."""

import hashlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from app.__main__ import cli
from app.cores import count_cores
from app.settings import Settings
from tests.app.answers import post_images
from tests.app.bulk.bulk_runs import (
    names_of,
    read_errors,
    read_rows,
    write_colour,
    write_colours,
)
from tests.app.fake_embedder import LOSES_DEVICE
from tests.app.images import NO_IMAGE, encode, scene, truncated_jpeg
from tests.app.service_server import run_service
from tests.reference import ReferenceCheckpoint

REPOSITORY = Path(__file__).parents[2]
_END_S = 90
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

# The real thing, but each batch takes a while once there are rows to lose.
_SLOWLY = """
import sys, time, app.main
load = app.main.load_model
def load_slow(settings):
    embedder = load(settings)
    begin, batches = embedder.begin, []
    def begin_slowly(*batch):
        batches.append(batch)
        time.sleep(0.2 if len(batches) > 5 else 0)
        return begin(*batch)
    embedder.begin = begin_slowly
    return embedder
app.main.load_model = load_slow
from app.__main__ import cli
cli(sys.argv[1:])
"""
_WITH_FAKE = """
import sys, app.main
from tests.app.fake_embedder import FakeEmbedder
app.main.load_model = lambda _: FakeEmbedder()
from app.__main__ import cli
cli(sys.argv[1:])
"""
_WITH_PAUSING_FAKE = """
import sys, app.main
from tests.app.bulk.test_run import PausesOnce
class TellsOfItsPause(PausesOnce):
    def begin(self, *batch):
        begun = super().begin(*batch)
        if self.paused:
            print("paused", flush=True)
        return begun
app.main.load_model = lambda _: TellsOfItsPause()
from app.__main__ import cli
cli(sys.argv[1:])
"""


_ON_A_TERMINAL = """
import fcntl, signal, termios
signal.signal(signal.SIGHUP, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
"""
_WITH_HANGING_READS = """
import sys, threading, app.main
from app.bulk.image_file import ImageFile
from tests.app.fake_embedder import FakeEmbedder
read = ImageFile.__call__
def hang(file):
    if "hang" in str(file._path):
        threading.Event().wait()
    return read(file)
ImageFile.__call__ = hang
app.main.load_model = lambda _: FakeEmbedder()
from app.__main__ import cli
cli(sys.argv[1:])
"""


@pytest.fixture
def _no_interrupt_is_ignored() -> Iterator[None]:
    """As it is for who does not start the tests in the background: a process inherits that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def start(
    model: Path | None, *arguments: str | Path, code: str | None = None, **options: Any
) -> subprocess.Popen[str]:
    """Start the command with a model in float32, or with `code` in the place of the module."""
    settings = {"SIGLIP_MODEL": str(model), "SIGLIP_DEVICE": "cpu", "SIGLIP_DTYPE": "float32"}
    return subprocess.Popen(
        [sys.executable, *(("-c", code) if code else ("-m", "app")), "embed", *arguments],
        cwd=REPOSITORY,
        env=os.environ | settings,
        text=True,
        **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options),
    )


def run(
    model: Path | None, *arguments: str | Path, code: str | None = None
) -> tuple[int, str, str]:
    """Run the command; return exit code, standard output, standard error."""
    with start(model, *arguments, code=code) as process:
        output, errors = process.communicate(timeout=_END_S)
    return process.returncode, output, errors


def last_event(output: str) -> dict[str, Any]:
    """Return the last line of a log, all of which must be JSON."""
    events: list[dict[str, Any]] = [json.loads(line) for line in output.splitlines()]
    return events[-1]


@pytest.fixture(scope="module")
def many_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with more images than a slow run embeds before it is interrupted."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(400):
        (folder / f"{seed:03}.png").write_bytes(encode(scene(seed, (40, 30))))
    (folder / "020.jpg").write_bytes(truncated_jpeg())
    return folder


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory,
    many_photos: Path,
    tiny_checkpoint: ReferenceCheckpoint,
) -> list[dict[str, Any]]:
    """The rows of a run over all of them that nobody interrupted."""
    output = tmp_path_factory.mktemp("whole") / "out.parquet"
    code, _, _ = run(tiny_checkpoint.folder, many_photos, "-o", output)
    assert code == 1
    return read_rows(output)


def test_files_get_the_vectors_sizes_and_errors_that_post_embed_gives(
    tiny_checkpoint: ReferenceCheckpoint, photographs: list[Image.Image], tmp_path: Path
) -> None:
    folder, output = tmp_path / "photos", tmp_path / "out.parquet"
    folder.mkdir()
    for number, photograph in enumerate(photographs):
        photograph.save(folder / f"{number}.jpg", quality=92)
        photograph.convert("LA").resize((90, 80)).save(folder / f"{number}.png")
    (folder / "bad.gif").write_bytes(NO_IMAGE)
    (folder / "cut.jpg").write_bytes(truncated_jpeg())

    code, printed, errors = run(tiny_checkpoint.folder, folder, "-o", output)

    assert (code, errors) == (1, "")
    told = last_event(printed)
    assert (told["event"], told["images"], told["failed"]) == ("embedded", 10, 2)
    assert told["images_per_s"] > 0
    rows = read_rows(output)
    files = sorted(folder.iterdir())
    assert [row["path"] for row in rows] == [str(file) for file in files]
    settings = Settings(
        model=str(tiny_checkpoint.folder), model_fallback=None, device="cpu", dtype="float32"
    )
    with run_service(settings) as service:
        service.wait_for_status("ok")
        answer = post_images(
            service.client,
            "multipart",
            [file.read_bytes() for file in files],
            {"on_error": "partial"},
        ).json()
    metadata = pq.read_metadata(output).metadata
    assert metadata[b"space"].decode() == answer["space"]
    assert metadata[b"model"].decode() == answer["model"]
    for row, file, item in zip(rows, files, answer["data"], strict=True):
        check_row(row, file, item)


def check_row(row: dict[str, Any], file: Path, item: dict[str, Any]) -> None:
    """Assert that a row says what the answer's item says."""
    assert row["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    if "error" in item:
        assert row["error"] == item["error"]["code"]
        assert row["embedding"] is None
        return
    assert (row["width"], row["height"]) == (item["image"]["width"], item["image"]["height"])
    np.testing.assert_allclose(row["embedding"], item["embedding"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.usefixtures("_no_interrupt_is_ignored")
def test_after_any_signal_a_resumed_run_ends_with_the_rows_of_one_that_was_left_alone(
    tiny_checkpoint: ReferenceCheckpoint,
    many_photos: Path,
    whole: list[dict[str, Any]],
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    output = tmp_path / "out.parquet"
    arguments = (many_photos, "-o", output)
    journal = tmp_path / "out.parquet.partial" / "journal"

    with start(tiny_checkpoint.folder, *arguments, code=_SLOWLY) as process:
        wait_for_lines(journal, 30, process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=_END_S)

    assert errors == ""
    if number == signal.SIGKILL:
        assert process.returncode == -number
        assert not output.exists()
        assert journal.exists()
    else:
        assert process.returncode == 128 + number
        some = read_rows(output)
        assert 20 < len(some) < len(whole)
        assert_same_rows(
            some, [row for row in whole if row["path"] in {one["path"] for one in some}]
        )
        assert not journal.exists()
    code, _, errors = run(tiny_checkpoint.folder, *arguments)
    assert code == 2
    (line,) = errors.splitlines()
    assert "--resume" in line
    code, printed, _ = run(tiny_checkpoint.folder, *arguments, "--resume")
    assert code == 1
    assert last_event(printed)["images"] < len(whole) - 20
    assert_same_rows(read_rows(output), whole)
    assert read_errors(output) == {"020.jpg": "image_truncated"}
    assert {path.name for path in tmp_path.iterdir()} == {"out.parquet", "out.parquet.errors.jsonl"}


def test_a_second_signal_ends_the_process_at_once_and_leaves_the_journal(tmp_path: Path) -> None:
    write_colours(tmp_path / "photos", range(150))
    output, journal = tmp_path / "out.npy", tmp_path / "out.npy.partial" / "journal"

    with start(None, tmp_path / "photos", "-o", output, code=_WITH_PAUSING_FAKE) as process:
        assert process.stdout is not None
        assert any(line == "paused\n" for line in process.stdout)  # a batch stays on the device
        while process.poll() is None:  # after the first it would wait five seconds for that batch
            process.send_signal(signal.SIGTERM)
            time.sleep(0.1)
        code = process.returncode

    assert code == 128 + signal.SIGTERM
    assert journal.exists()
    assert not output.exists()


def test_one_signal_ends_a_run_in_which_every_decoder_hangs_with_what_was_computed(
    tmp_path: Path,
) -> None:
    cores = count_cores()
    write_colours(tmp_path / "photos", range(20))
    for number in range(2 * cores):
        write_colour(tmp_path / "photos" / f"hang{number}.png", (100, 0, 0))
    output, journal = tmp_path / "out.npy", tmp_path / "out.npy.partial" / "journal"

    with start(None, tmp_path / "photos", "-o", output, code=_WITH_HANGING_READS) as process:
        wait_for_lines(journal, 1 + 20, process)
        process.send_signal(signal.SIGTERM)
        try:
            _, errors = process.communicate(timeout=_END_S)
        finally:
            process.kill()  # if it has not ended, it never will

    assert (process.returncode, errors) == (128 + signal.SIGTERM, "")
    assert names_of(read_rows(output)) == [f"{red:03}.png" for red in range(20)]
    assert not journal.exists()


@pytest.mark.parametrize("options", [[], ["--quiet"]])
def test_it_tells_what_it_left_out_by_extension_and_takes_what_has_none(
    tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGLIP_FORMATS", "png,tiff,heic")
    folder, output = tmp_path / "photos", tmp_path / "out.jsonl"
    folder.mkdir()
    for name, image_format in (("scan.TIF", "TIFF"), ("IMG_1.HEIC", "HEIC"), ("blob", "PNG")):
        (folder / name).write_bytes(encode(scene(0), image_format))
    for name in ("a.txt", "b.txt", "c.jpg", "Makefile"):
        (folder / name).write_text("a text")

    code, told, errors = run(None, folder, "-o", output, *options, code=_WITH_FAKE)

    assert (code, errors) == (0, "")
    assert names_of(read_rows(output)) == ["IMG_1.HEIC", "blob", "scan.TIF"]
    event = last_event(told)
    assert (event["event"], event["left_out"]) == ("embedded", 4)
    assert event["left_out_extensions"] == {".txt": 2, ".jpg": 1, "no extension": 1}


def test_a_quiet_run_shows_a_terminal_its_end_alone(tmp_path: Path) -> None:
    write_colours(tmp_path / "photos", range(20))
    (tmp_path / "photos" / "a.heic").touch()
    ours, theirs = pty.openpty()

    with start(
        None,
        tmp_path / "photos",
        "-o",
        tmp_path / "out.npy",
        "--quiet",
        code=_WITH_FAKE,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        shown = _ESCAPES.sub("", read_all(ours).decode())
        process.communicate(timeout=_END_S)

    assert process.returncode == 0
    (line,) = shown.splitlines()
    assert line.startswith("20 images, 0 failed, ")
    assert line.endswith("; left out: 1 file of another format (.heic 1)")


def test_a_terminal_that_is_closed_ends_the_run_with_what_was_computed(tmp_path: Path) -> None:
    write_colours(tmp_path / "photos", range(150))
    output, journal = tmp_path / "out.npy", tmp_path / "out.npy.partial" / "journal"
    ours, theirs = pty.openpty()

    with start(
        None,
        tmp_path / "photos",
        "-o",
        output,
        code=_ON_A_TERMINAL + _WITH_PAUSING_FAKE,  # its pause is told to the terminal here
        stdin=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        wait_for_lines(journal, 1 + 20, process)
        os.close(theirs)
        os.close(ours)  # the kernel hangs up on whoever has the terminal
        process.communicate(timeout=_END_S)

    assert process.returncode == 128 + signal.SIGHUP
    assert 20 <= len(read_rows(output)) < 150
    assert not journal.exists()


def read_all(terminal: int) -> bytes:
    """Read what a terminal shows to its end, which Linux tells by an error, and close it."""
    parts = []
    with open(terminal, "rb", buffering=0) as file, suppress(OSError):
        while part := file.read(4096):
            parts.append(part)
    return b"".join(parts)


def assert_same_rows(rows: Sequence[dict[str, Any]], expected: Sequence[dict[str, Any]]) -> None:
    """Assert that rows are the same but for the last digits: batches were other ones."""
    assert [row | {"embedding": None} for row in rows] == [
        row | {"embedding": None} for row in expected
    ]
    for row, other in zip(rows, expected, strict=True):
        if row["error"] is None:
            np.testing.assert_allclose(row["embedding"], other["embedding"], rtol=0, atol=1e-6)


def wait_for_lines(path: Path, lines: int, process: subprocess.Popen[str]) -> None:
    """Wait until a process has written so many lines to a file."""
    give_up_at = time.monotonic() + _END_S
    while not path.exists() or path.read_bytes().count(b"\n") < lines:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def test_on_a_terminal_there_is_a_bar_with_the_rate_and_a_line_at_the_end(tmp_path: Path) -> None:
    write_colours(tmp_path / "photos", range(60))
    ours, theirs = pty.openpty()

    with start(
        None, tmp_path / "photos", "-o", tmp_path / "out.npy", code=_WITH_FAKE, stderr=theirs
    ) as process:
        logged, _ = process.communicate(timeout=_END_S)
    os.close(theirs)
    shown = read_all(ours).decode()

    assert process.returncode == 0
    assert last_event(logged)["event"] == "ready"  # which is not shown, since it goes elsewhere
    assert "60/60" in shown
    assert "images/s" in shown
    assert "60 images, 0 failed" in shown.splitlines()[-1]


def test_log_lines_on_a_terminal_stand_above_the_bar(tmp_path: Path) -> None:
    write_colours(tmp_path / "photos", range(60))
    ours, theirs = pty.openpty()

    arguments = (tmp_path / "photos", "-o", tmp_path / "out.npy")
    with start(None, *arguments, code=_WITH_FAKE, stdout=theirs, stderr=theirs) as process:
        process.communicate(timeout=_END_S)
    os.close(theirs)
    shown = _ESCAPES.sub("", read_all(ours).decode())

    assert "60/60" in shown
    logged = [line for line in re.split("[\r\n]+", shown) if '"event"' in line]
    assert "ready" in [json.loads(line)["event"] for line in logged]


def test_a_lost_device_ends_the_process_with_70(tmp_path: Path) -> None:
    write_colours(tmp_path / "photos", range(LOSES_DEVICE - 60, LOSES_DEVICE + 1))

    code, printed, _ = run(None, tmp_path / "photos", "-o", tmp_path / "out.npy", code=_WITH_FAKE)

    assert code == 70
    assert "the engine failed; --resume goes on from here" in printed


def test_a_model_that_cannot_be_loaded_ends_the_process_with_3_and_one_line(tmp_path: Path) -> None:
    write_colours(tmp_path / "photos", range(1))

    code, printed, errors = run(tmp_path / "none", tmp_path / "photos", "-o", tmp_path / "out.npy")

    assert (code, errors) == (3, "")
    assert last_event(printed)["event"] == "cannot start"
    assert "no folder" in last_event(printed)["reason"]
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_path_that_is_not_there_is_named_before_anything_is_loaded(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        cli, ["embed", str(tmp_path / "photoz"), "-o", str(tmp_path / "out.npy"), "--model", "none"]
    )

    assert result.exit_code == 2
    assert result.stderr == f"{tmp_path}/photoz: no such file or directory\n"


@pytest.mark.parametrize(
    ("setting", "arguments", "said"),
    [
        ("int4", ("a.png", "-o", "out.npy"), "SIGLIP_DTYPE: "),
        ("auto", ("a.png",), "Missing option '-o'"),
        ("auto", ("-o", "out.npy"), "give images and folders of images, or --texts FILE"),
        ("auto", ("a.png", "--texts", "a.txt", "-o", "out.npy"), "not both"),
        ("auto", ("--texts", "a.txt", "-o", "o.npy", "--output", "both"), "texts have no patches"),
        ("auto", ("a.png", "-o", "out.npy", "--output", "all"), "'all' is not one of"),
    ],
)
def test_a_command_that_makes_no_sense_ends_with_2(
    monkeypatch: pytest.MonkeyPatch, setting: str, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.setenv("SIGLIP_DTYPE", setting)

    result = CliRunner().invoke(cli, ["embed", *arguments])

    assert result.exit_code == 2
    assert said in result.stderr


def test_the_service_pays_nothing_for_the_command() -> None:
    code = "import sys, app.__main__; print([name for name in sys.modules if 'app.bulk' in name])"
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, check=True, text=True
    )

    assert printed.stdout.strip() == "[]"
