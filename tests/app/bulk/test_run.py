"""Whole runs with the fake embedder: what ends up in the output, whatever happens on the way."""

import asyncio
import errno
import fcntl
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

import app.bulk
from app.bulk.image_file import ImageFile
from app.bulk.pipeline import images_in_flight
from app.bulk.row import BulkError, OutputKind
from app.cores import count_cores
from app.engine.protocol import ModelInfo, Pixels, Vectors
from app.engine.service import EmbeddingService
from tests.app.bulk.bulk_runs import (
    names_of,
    read_errors,
    read_rows,
    reds_of,
    run_bulk,
    write_colour,
    write_colours,
)
from tests.app.fake_embedder import GIVES_NAN, LOSES_DEVICE, RAISES, FakeEmbedder, expected_pooled
from tests.app.images import NO_IMAGE, encode, plain_png, scene, truncated_jpeg

SUFFIXES = [".parquet", ".npy", ".jsonl"]
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
_WAIT_S = 30


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with five images, red from 0 to 4."""
    write_colours(tmp_path / "photos", range(5))
    return tmp_path / "photos"


@dataclass
class OtherModel(FakeEmbedder):
    """The fake, described otherwise."""

    space: str = "fake:ffffffffffff"
    naflex: bool = False
    pooled: bool = True

    @property
    def info(self) -> ModelInfo:
        return replace(super().info, space=self.space, naflex=self.naflex, pooled=self.pooled)


@dataclass
class PausesOnce(FakeEmbedder):
    """The fake, which closes its gate by itself when it has computed 40 images."""

    paused: bool = False

    def begin(self, pixels: Pixels, patches_of: int = 0) -> Callable[[], Vectors]:
        if len(self.computed) >= 40 and not self.paused:
            self.paused = True
            self.gate.clear()
        return super().begin(pixels, patches_of)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_has_all_images_in_order_with_their_vectors(
    photos: Path, tmp_path: Path, suffix: str
) -> None:
    output = tmp_path / f"out{suffix}"

    assert run_bulk(photos, output) == 0

    rows = read_rows(output)
    assert [row["path"] for row in rows] == [str(photos / f"00{red}.png") for red in range(5)]
    assert [row["embedding"] for row in rows] == [expected_pooled((red, 0, 0)) for red in range(5)]
    assert {(row["width"], row["height"], row["error"]) for row in rows} == {(8, 6, None)}
    names = {"out" + suffix, "photos"} | ({"out.npy.rows.jsonl"} if suffix == ".npy" else set())
    assert {path.name for path in tmp_path.iterdir()} == names


def test_vectors_are_normalised_as_over_http(photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"

    run_bulk(photos, output, normalize=True)

    vectors = np.array([row["embedding"] for row in read_rows(output)], np.float32)
    raw = np.array([expected_pooled((red, 0, 0)) for red in range(5)])
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, unit, rtol=0, atol=1e-7)


def test_rows_keep_the_order_of_the_arguments_however_long_each_takes(tmp_path: Path) -> None:
    small = write_colours(tmp_path / "small", range(20))
    large = tmp_path / "large.png"
    large.write_bytes(encode(scene(0, (3000, 3000))))
    output = tmp_path / "out.jsonl"

    run_bulk([large, *reversed(small), large], output)

    assert [row["path"] for row in read_rows(output)] == [
        str(large),
        *(str(path) for path in reversed(small)),
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_bad_image_fails_alone_with_its_code(photos: Path, tmp_path: Path, suffix: str) -> None:
    (photos / "a.jpg").write_bytes(NO_IMAGE)
    (photos / "b.jpg").write_bytes(truncated_jpeg())
    (photos / "c.png").write_bytes(plain_png((9, 9, 9)) + bytes(5000))
    (photos / "d.png").symlink_to("none")
    write_colour(photos / "e.png", (GIVES_NAN, 0, 0))
    write_colour(photos / "f.png", (RAISES, 0, 0))
    os.mkfifo(tmp_path / "g.png")
    (photos / "h.png").touch()
    (photos / "i.png").symlink_to("i.png")
    output = tmp_path / f"out{suffix}"

    assert run_bulk([photos, tmp_path / "g.png"], output, max_image_bytes=5000) == 1

    errors = {
        "a.jpg": "unsupported_image_format",
        "b.jpg": "image_truncated",
        "c.png": "image_too_large",
        "d.png": "file_unreadable",
        "e.png": "non_finite",
        "f.png": "internal",
        "h.png": "unsupported_image_format",
        "i.png": "file_unreadable",
        "g.png": "file_unreadable",
    }
    assert read_errors(output) == errors
    rows = read_rows(output)
    assert reds_of(rows[:5]) == [0, 1, 2, 3, 4]
    told = dict(zip(names_of(rows[5:]), (row["error"] for row in rows[5:]), strict=True))
    assert told == ({} if suffix == ".npy" else errors)
    assert all(row["embedding"] is None and row["width"] is None for row in rows[5:])


def test_patches_and_both_have_their_columns(photos: Path, tmp_path: Path) -> None:
    patches, both = tmp_path / "patches.parquet", tmp_path / "both.jsonl"
    array = tmp_path / "patches.npy"

    run_bulk(photos, patches, kind="patches")
    run_bulk(photos, both, kind="both")
    run_bulk(photos, array, kind="patches")

    one, two = read_rows(patches)[3], read_rows(both)[3]
    assert one["grid"] == two["grid"] == [2, 2]
    assert one["patches"] == two["patches"] == [[3, 0, 0, 2]] * 4
    assert two["embedding"] == expected_pooled((3, 0, 0))
    assert "embedding" not in one
    assert np.load(array).shape == (5, 4, 4)
    assert np.load(array)[3].tolist() == one["patches"]


def test_no_more_images_are_in_flight_than_the_window_has(tmp_path: Path) -> None:
    embedder = FakeEmbedder()
    window = images_in_flight(embedder.info)
    write_colours(tmp_path / "photos", range(150))
    in_flight = []
    embedder.gate.clear()

    def look_and_let_go() -> None:
        wait_for(lambda: embedder.resized >= window)
        time.sleep(0.1)  # in which more would come, if more could
        in_flight.append(embedder.resized)
        embedder.gate.set()

    with beside(look_and_let_go):
        run_bulk(tmp_path / "photos", tmp_path / "out.npy", embedder)

    assert in_flight == [window]
    assert len(read_rows(tmp_path / "out.npy")) == 150


def test_batches_are_full_while_there_is_enough_to_do(tmp_path: Path) -> None:
    write_colours(tmp_path / "photos", range(150))
    embedder = FakeEmbedder()
    embedder.gate.clear()

    def let_go() -> None:
        wait_for(lambda: embedder.resized >= images_in_flight(embedder.info))
        embedder.gate.set()

    with beside(let_go):
        run_bulk(tmp_path / "photos", tmp_path / "out.npy", embedder)

    full = [batch for batch in embedder.batches if len(batch.colours) == embedder.max_batch_size]
    # Of the four of the first window one may lack what was still on its way when the gate opened;
    # later ones depend on the machine.
    assert len(full) >= 3


# Resuming.


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_output_that_exists_is_not_touched_unless_resumed(
    photos: Path, tmp_path: Path, suffix: str
) -> None:
    output = tmp_path / f"out{suffix}"
    output.write_bytes(b"mine")

    with pytest.raises(BulkError, match="exists: --resume"):
        run_bulk(photos, output)
    with pytest.raises(BulkError, match="not written by this command"):
        run_bulk(photos, output, resume=True)

    assert output.read_bytes() == b"mine"
    assert {path.name for path in tmp_path.iterdir()} == {output.name, "photos"}


@pytest.mark.parametrize("name", ["out.npy.rows.jsonl", "out.npy.errors.jsonl"])
def test_a_file_beside_the_output_is_not_touched_either(
    photos: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(b"mine")

    with pytest.raises(BulkError, match=f"{name} exists"):
        run_bulk(photos, tmp_path / "out.npy")

    assert (tmp_path / name).read_bytes() == b"mine"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_output_that_cannot_be_read_is_not_called_damaged(
    photos: Path, tmp_path: Path, suffix: str
) -> None:
    output = tmp_path / f"out{suffix}"
    output.mkdir()

    with pytest.raises(BulkError, match="cannot be read"):
        run_bulk(photos, output, resume=True)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_resuming_computes_what_is_new_or_failed_and_keeps_the_rest(
    photos: Path, tmp_path: Path, suffix: str
) -> None:
    output = tmp_path / f"out{suffix}"
    bad = photos / "001a.png"
    bad.write_bytes(NO_IMAGE)
    assert run_bulk(photos, output) == 1
    unchanged = read_rows(output)[0]
    write_colour(bad, (77, 0, 0))  # repaired
    write_colour(
        photos / "000.png", (99, 0, 0)
    )  # changed: it keeps its vector, and its hash says so
    (photos / "002.png").unlink()  # gone: what was computed stays
    write_colour(photos / "003a.png", (88, 0, 0))  # new
    embedder = FakeEmbedder()

    assert run_bulk(photos, output, embedder, resume=True) == 0

    rows = read_rows(output)
    assert sorted(red for red, _, _ in embedder.computed) == [77, 88]
    assert reds_of(rows) == [0, 1, 77, 3, 88, 4, 2]
    assert names_of(rows)[-1] == "002.png"
    assert rows[0] == unchanged
    assert read_errors(output) == {}


def test_a_file_that_fails_again_keeps_its_place_and_its_error(
    photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    (photos / "001a.png").write_bytes(NO_IMAGE)
    run_bulk(photos, output)
    before = read_rows(output)

    assert run_bulk(photos, output, resume=True) == 1

    assert read_rows(output) == before
    assert read_errors(output) == {"001a.png": "unsupported_image_format"}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_resuming_a_finished_output_changes_nothing(
    photos: Path, tmp_path: Path, suffix: str
) -> None:
    output = tmp_path / f"out{suffix}"
    run_bulk(photos, output)
    before = read_rows(output)
    embedder = FakeEmbedder()

    assert run_bulk(photos, output, embedder, resume=True) == 0

    assert embedder.computed == []
    assert read_rows(output) == before


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_output_in_which_all_failed_can_be_resumed(
    photos: Path, tmp_path: Path, suffix: str
) -> None:
    output = tmp_path / f"out{suffix}"
    (tmp_path / "bad.png").write_bytes(NO_IMAGE)
    assert run_bulk(tmp_path / "bad.png", output) == 1

    assert run_bulk(photos, output, resume=True) == 0

    assert reds_of(read_rows(output)) == [0, 1, 2, 3, 4]
    assert read_errors(output) == {}


def test_resuming_what_does_not_exist_begins_it(photos: Path, tmp_path: Path) -> None:
    assert run_bulk(photos, tmp_path / "out.npy", resume=True) == 0
    assert reds_of(read_rows(tmp_path / "out.npy")) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["patches", "both"])
def test_patches_are_resumed_too(photos: Path, tmp_path: Path, kind: str) -> None:
    output, whole = tmp_path / "out.parquet", tmp_path / "whole.parquet"
    run_bulk([photos / "000.png", photos / "003.png"], output, kind=kind)  # type: ignore[arg-type]

    run_bulk(photos, output, kind=kind, resume=True)  # type: ignore[arg-type]
    run_bulk(photos, whole, kind=kind)  # type: ignore[arg-type]

    assert read_rows(output) == read_rows(whole)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_vectors_of_another_space_or_kind_are_refused_and_stay_as_they_are(
    photos: Path, tmp_path: Path, suffix: str
) -> None:
    output = tmp_path / f"out{suffix}"
    run_bulk(photos, output)
    before = output.read_bytes()

    with pytest.raises(
        BulkError, match="of space fake:0123456789ab, these would be of fake:ffffffffffff"
    ):
        run_bulk(photos, output, OtherModel(), resume=True)
    with pytest.raises(BulkError, match="with --output pooled, not patches"):
        run_bulk(photos, output, kind="patches", resume=True)
    with pytest.raises(BulkError, match="that are not normalised"):
        run_bulk(photos, output, normalize=True, resume=True)

    assert output.read_bytes() == before
    assert not (tmp_path / f"out{suffix}.partial").exists()


def test_the_output_may_lie_among_the_images_and_among_the_arguments(
    photos: Path,
) -> None:
    output = photos / "out.npy"
    run_bulk(photos, output)
    (photos / "bad.png").write_bytes(NO_IMAGE)

    assert run_bulk(sorted(photos.iterdir()), output, resume=True) == 1
    assert run_bulk(sorted(photos.iterdir()), output, resume=True) == 1

    assert read_errors(output) == {"bad.png": "unsupported_image_format"}
    assert len(read_rows(output)) == 5


# Ends that nobody asked for.


@pytest.fixture(autouse=True)
def _no_signal_is_ignored() -> Iterator[None]:
    """As they are for who does not start the tests with nohup, or in the background."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_run_with_what_was_computed_and_resuming_does_the_rest(
    tmp_path: Path, suffix: str, number: signal.Signals
) -> None:
    write_colours(tmp_path / "photos", range(150))
    output, whole = tmp_path / f"out{suffix}", tmp_path / f"whole{suffix}"
    embedder = PausesOnce()
    handlers = [signal.getsignal(each) for each in SIGNALS]

    def interrupt() -> None:
        wait_for(lambda: not embedder.gate.is_set())
        wait_for(lambda: lines_in(tmp_path / f"out{suffix}.partial" / "journal") > 10)
        os.kill(os.getpid(), number)
        wait_for(lambda: signal.getsignal(signal.SIGHUP) == handlers[2])  # it was heard
        embedder.gate.set()

    with beside(interrupt):
        code = run_bulk(tmp_path / "photos", output, embedder)

    assert code == 128 + number
    assert [signal.getsignal(each) for each in SIGNALS] == handlers
    some = read_rows(output)
    assert 0 < len(some) < 150
    assert names_of(some) == sorted(names_of(some))
    again = FakeEmbedder()
    assert run_bulk(tmp_path / "photos", output, again, resume=True) == 0
    assert len(again.computed) == 150 - len(some)
    run_bulk(tmp_path / "photos", whole)
    assert read_rows(output) == read_rows(whole)


def test_a_hang_up_that_nohup_ignores_stays_ignored(photos: Path, tmp_path: Path) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    embedder = FakeEmbedder()
    embedder.gate.clear()

    def hang_up() -> None:
        embedder.wait_until_entered()
        os.kill(os.getpid(), signal.SIGHUP)
        embedder.gate.set()

    with beside(hang_up):
        assert run_bulk(photos, tmp_path / "out.npy", embedder) == 0

    assert reds_of(read_rows(tmp_path / "out.npy")) == [0, 1, 2, 3, 4]


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Semaphore]:
    """Counts files named `hang` that are being read, which takes as long as the test."""
    begun, end = threading.Semaphore(0), threading.Event()
    read = ImageFile.__call__

    def hang(file: ImageFile) -> bytes:
        if "hang" in Path(file._path).name:
            begun.release()
            assert end.wait(_WAIT_S)
        return read(file)

    monkeypatch.setattr(ImageFile, "__call__", hang)
    yield begun
    end.set()


def write_hanging(folder: Path) -> list[Path]:
    """Write an image that hangs for every thread that could decode one."""
    cores = count_cores()
    return [write_colour(folder / f"hang{number}.png", (100, 0, 0)) for number in range(cores)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_engine_that_is_lost_ends_the_run_with_70_and_what_was_computed(
    photos: Path,
    tmp_path: Path,
    suffix: str,
    hanging: threading.Semaphore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it is when every decoder has hung for minutes."""
    output, journal = tmp_path / f"out{suffix}", tmp_path / f"out{suffix}.partial" / "journal"
    hangs = write_hanging(photos)

    def is_lost(_: EmbeddingService) -> bool:
        return lines_in(journal) == 1 + 5 and hanging.acquire(blocking=False)

    with monkeypatch.context() as patch:
        patch.setattr(EmbeddingService, "lost", property(is_lost))
        assert run_bulk(photos, output) == 70

    assert reds_of(read_rows(output)) == [0, 1, 2, 3, 4]
    for path in hangs:
        path.unlink()
    write_colour(photos / "005.png", (5, 0, 0))
    assert run_bulk(photos, output, resume=True) == 0
    assert reds_of(read_rows(output)) == [0, 1, 2, 3, 4, 5]


@pytest.mark.usefixtures("hanging")
def test_a_file_that_hangs_fails_alone_when_nothing_else_is_left(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.bulk.pipeline._LOOK_EVERY_S", 0.01)
    write_colour(photos / "hang.png", (100, 0, 0))
    output = tmp_path / "out.jsonl"

    assert run_bulk(photos, output) == 1

    assert read_errors(output) == {"hang.png": "deadline_exceeded"}
    assert reds_of(read_rows(output)[:5]) == [0, 1, 2, 3, 4]


def test_nothing_is_given_up_while_images_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, journal = tmp_path / "out.npy", tmp_path / "out.npy.partial" / "journal"
    write_colours(tmp_path / "photos", range(150))
    real_sleep, look, seen = asyncio.sleep, -1.0, 0

    async def until_one_more_is_done(seconds: float) -> None:
        nonlocal seen
        if seconds != look:
            await real_sleep(seconds)
            return
        while lines_in(journal) <= seen:
            await real_sleep(0.001)
        seen = lines_in(journal)

    monkeypatch.setattr("app.bulk.pipeline._LOOK_EVERY_S", look)
    monkeypatch.setattr("app.bulk.pipeline._STANDSTILL_LOOKS", 2)
    monkeypatch.setattr(asyncio, "sleep", until_one_more_is_done)

    assert run_bulk(tmp_path / "photos", output) == 0


def test_a_lost_device_ends_the_run_with_70_and_loses_nothing(tmp_path: Path) -> None:
    files = write_colours(tmp_path / "photos", range(120))
    write_colour(files[100], (LOSES_DEVICE, 0, 0))
    output = tmp_path / "out.parquet"

    assert run_bulk(files, output) == 70

    rows = read_rows(output)
    assert rows  # those before it, and of those beside it what was computed first
    assert files[100].name not in names_of(rows)
    assert all(row["error"] is None for row in rows)
    write_colour(files[100], (100, 0, 0))
    assert run_bulk(files, output, resume=True) == 0
    assert reds_of(read_rows(output)) == list(range(120))


def test_a_full_disk_ends_the_run_with_one_line_and_resuming_goes_on(tmp_path: Path) -> None:
    files = write_colours(tmp_path / "photos", range(120))
    output = tmp_path / "out.jsonl"

    with largest_file(10_000), pytest.raises(BulkError, match="cannot be written: file too large"):
        run_bulk(files, output)
    with pytest.raises(BulkError, match="is what an earlier run left"):
        run_bulk(files, output)
    embedder = FakeEmbedder()
    assert run_bulk(files, output, embedder, resume=True) == 0

    assert 0 < len(embedder.computed) < 120
    assert reds_of(read_rows(output)) == list(range(120))
    assert not (tmp_path / "out.jsonl.partial").exists()


def test_an_output_that_cannot_be_put_together_leaves_the_old_one_and_the_journal(
    photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    run_bulk(photos, output)
    before = output.read_bytes()
    write_colours(photos, range(100, 150))

    in_the_way = tmp_path / "out.jsonl.partial" / "out.jsonl"
    in_the_way.mkdir(parents=True)
    with pytest.raises(BulkError, match="cannot be written: is a directory"):
        run_bulk(photos, output, resume=True)
    in_the_way.rmdir()
    assert output.read_bytes() == before
    embedder = FakeEmbedder()
    assert run_bulk(photos, output, embedder, resume=True) == 0

    assert embedder.computed == []
    assert reds_of(read_rows(output)) == [*range(5), *range(100, 150)]


def test_two_runs_do_not_write_one_output(photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.npy"
    work = tmp_path / "out.npy.partial"
    work.mkdir()
    folder = os.open(work, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)

    with pytest.raises(BulkError, match="another process"):
        run_bulk(photos, output, resume=True)
    os.close(folder)

    assert run_bulk(photos, output) == 0


def test_a_run_that_is_refused_leaves_the_folder_of_the_other(photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.npy"

    def load() -> FakeEmbedder:  # when the first has its folder, and nothing in it yet
        with pytest.raises(BulkError, match="another process"):
            run_bulk(photos, output)
        return FakeEmbedder()

    assert run_bulk(photos, output, load=load) == 0
    assert len(read_rows(output)) == 5


def test_a_file_system_without_locks_is_one_line(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)

    with pytest.raises(BulkError, match="cannot be written: no locks available"):
        run_bulk(photos, tmp_path / "out.npy")


def test_an_output_that_is_a_link_is_written_where_it_leads(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "vectors"
    link = tmp_path / "out.npy"
    link.symlink_to(target)

    for rows, paths in ((1, photos / "000.png"), (5, photos)):
        assert run_bulk(paths, link, resume=rows > 1) == 0

        assert link.is_symlink()
        assert len(np.load(target)) == rows


# What cannot be begun.


def test_nothing_to_embed_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()

    for nothing, said in (
        (tmp_path, "no image"),
        (tmp_path / "misspelt", "misspelt: no such file or directory"),
        (tmp_path / ("x" * 300), "xxx: file name too long"),
        (tmp_path / "notes.txt" / "b", "notes.txt/b: not a directory"),
    ):
        with pytest.raises(BulkError, match=said):
            run_bulk(nothing, tmp_path / "out.npy")

    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_argument_that_is_not_there_is_told_before_the_others_are_embedded(
    photos: Path, tmp_path: Path
) -> None:
    with capture_logs() as lines:
        assert run_bulk([photos, tmp_path / "misspelt"], tmp_path / "out.npy") == 1

    assert lines[0]["reason"] == f"{tmp_path}/misspelt: no such file or directory"
    assert read_errors(tmp_path / "out.npy") == {"misspelt": "file_unreadable"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("out.csv", "ends in .parquet, .npy or .jsonl"),
        ("out", "ends in .parquet, .npy or .jsonl"),
        ("none/out.npy", "no such file or directory"),
        ("photos/000.png/out.npy", "not a directory"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_the_model_is_loaded(
    photos: Path, tmp_path: Path, name: str, reason: str
) -> None:
    with pytest.raises(BulkError, match=reason):
        run_bulk(photos, tmp_path / name, load=lambda: pytest.fail("it was loaded"))


def test_what_is_no_array_is_refused_for_npy(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(BulkError, match="--output both is not one array"):
        run_bulk(photos, tmp_path / "out.npy", kind="both")
    with pytest.raises(BulkError, match="NaFlex"):
        run_bulk(photos, tmp_path / "out.npy", OtherModel(naflex=True), kind="patches")

    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    assert run_bulk(photos, tmp_path / "out.npy", OtherModel(naflex=True)) == 0


@pytest.mark.parametrize("kind", ["pooled", "both"])
def test_pooled_vectors_of_a_model_without_head_are_refused(
    photos: Path, tmp_path: Path, kind: OutputKind
) -> None:
    with pytest.raises(BulkError, match="--output patches"):
        run_bulk(photos, tmp_path / "out.jsonl", OtherModel(pooled=False), kind=kind)

    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_parquet_without_pyarrow_says_what_to_install(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "app.bulk.parquet", raising=False)
    monkeypatch.delattr(app.bulk, "parquet", raising=False)

    with pytest.raises(BulkError, match="pip install pyarrow"):
        run_bulk(photos, tmp_path / "out.parquet")
    assert run_bulk(photos, tmp_path / "out.npy") == 0


@contextmanager
def beside(work: Callable[[], None]) -> Iterator[None]:
    """Do something in a thread for the length of the block."""
    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join(_WAIT_S)
    assert not thread.is_alive()


def lines_in(path: Path) -> int:
    """Count the lines of a file; there are none in one that does not exist."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    give_up_at = time.monotonic() + _WAIT_S
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.005)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow larger in the block, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
