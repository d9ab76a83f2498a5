"""Image files as the decode pool reads them."""

import hashlib
import os
import socket
from pathlib import Path

import pytest

from app.bulk.image_file import ImageFile
from app.errors import FileUnreadableError


def test_a_file_gives_its_bytes_and_their_hash(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")

    file = ImageFile(tmp_path / "a", max_bytes=5)

    assert file() == b"12345"
    assert file.sha256 == hashlib.sha256(b"12345").hexdigest()


def test_a_file_over_the_limit_is_read_no_further_and_has_no_hash(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123456789")

    file = ImageFile(tmp_path / "a", max_bytes=5)

    assert file() == b"123456"  # enough for the decoder to refuse it
    assert file.sha256 is None


def test_what_cannot_be_read_says_why_and_not_where(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))

    open_files = len(list(Path("/proc/self/fd").iterdir()))
    reasons = {}
    for name in ("none", "loop", "folder", "pipe", "socket", "/dev/null"):
        with pytest.raises(FileUnreadableError) as raised:
            ImageFile(tmp_path / name, max_bytes=5)()
        reasons[name] = raised.value.message
        assert raised.value.code == "file_unreadable"

    assert reasons == {
        "none": "the file cannot be read: no such file or directory",
        "loop": "the file cannot be read: too many levels of symbolic links",
        "folder": "the file cannot be read: is a directory",
        "pipe": "this is not a regular file",
        "socket": "this is not a regular file",
        "/dev/null": "this is not a regular file",
    }
    assert len(list(Path("/proc/self/fd").iterdir())) == open_files


def test_what_is_no_file_is_not_even_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening is enough to rewind a tape, or to start a watchdog."""
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("it was opened"))

    with pytest.raises(FileUnreadableError):
        ImageFile("/dev/null", max_bytes=5)()


def test_what_has_become_a_pipe_since_it_was_looked_at_blocks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").touch()
    before = (tmp_path / "a").stat()
    (tmp_path / "a").unlink()
    os.mkfifo(tmp_path / "a")
    monkeypatch.setattr(os, "stat", lambda _: before)

    with pytest.raises(FileUnreadableError, match="not a regular file"):
        ImageFile(tmp_path / "a", max_bytes=5)()
