"""The folder of a run on Ray: whose it is, and what its vectors are."""

import fcntl
from errno import ENOSYS
from pathlib import Path

import pytest

from app.bulk.row import BulkError, Origin
from app.scale.parted_output import PartedOutput

ORIGIN = Origin("model", None, "model:0123", "pooled", normalized=True, dim=3)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_two_runs_do_not_write_one_folder(tmp_path: Path, scheme: str) -> None:
    output = f"{scheme}{tmp_path}/new/out"

    with (
        PartedOutput(output).claimed(resume=False),
        pytest.raises(BulkError, match="another process"),
        PartedOutput(output).claimed(resume=False),
    ):
        pass

    with PartedOutput(output).claimed(resume=False):
        pass


def test_a_folder_that_cannot_be_locked_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)

    with PartedOutput(str(tmp_path / "out")).claimed(resume=False):
        pass


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with (
        pytest.raises(BulkError, match="cannot be written"),
        PartedOutput(str(tmp_path / "file")).claimed(resume=False),
    ):
        pass


def test_an_output_that_is_begun_goes_on_with_the_same_vectors_only(tmp_path: Path) -> None:
    output = PartedOutput(str(tmp_path / "out"))
    output.claim(ORIGIN)

    output.claim(ORIGIN)

    assert [path.name for path in (tmp_path / "out" / "_run").iterdir()] == ["origin.json"]
    with pytest.raises(BulkError, match="exists: --resume"), output.claimed(resume=False):
        pass
    other = Origin("model", None, "model:4567", "pooled", normalized=True, dim=3)
    with pytest.raises(BulkError, match="model:4567"):
        output.claim(other)


@pytest.mark.parametrize("half", ["", '{"model": "mod', '{"model": "model"}', "[]"])
def test_a_damaged_origin_is_told(tmp_path: Path, half: str) -> None:
    (tmp_path / "_run").mkdir()
    (tmp_path / "_run" / "origin.json").write_text(half)

    with pytest.raises(BulkError, match="damaged"):
        PartedOutput(str(tmp_path)).claim(ORIGIN)


def test_an_origin_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(_: object) -> str:
        raise KeyboardInterrupt

    output = PartedOutput(str(tmp_path))
    monkeypatch.setattr("app.scale.parted_output.json.dumps", die)
    with pytest.raises(KeyboardInterrupt):
        output.claim(ORIGIN)
    monkeypatch.undo()

    with output.claimed(resume=False):
        output.claim(ORIGIN)
