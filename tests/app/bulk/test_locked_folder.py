"""A folder that one process keeps: it is the one that is there, and not one that was."""

import fcntl
from pathlib import Path

import pytest

from app.bulk.locked_folder import locked_folder


@pytest.mark.parametrize("remade", [True, False])
def test_a_folder_that_was_removed_meanwhile_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remade: bool
) -> None:
    folder = tmp_path / "out.partial"
    lock = fcntl.flock

    def lock_late(held: int, how: int) -> None:
        folder.rmdir()  # as the process does that had it
        if remade:
            folder.mkdir()  # as a third one does, which locks that
        lock(held, how)

    monkeypatch.setattr(fcntl, "flock", lock_late)

    with pytest.raises(BlockingIOError), locked_folder(folder):
        pass
    monkeypatch.undo()
    with locked_folder(folder), pytest.raises(BlockingIOError), locked_folder(folder):
        pass
