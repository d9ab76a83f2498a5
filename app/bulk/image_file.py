"""An image file as a source for the service: read on the decode pool, its hash noted."""

import errno
import hashlib
import os
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from app.errors import FileUnreadableError


class ImageFile:
    """Gives a file's bytes when called; `sha256` is theirs from then on.

    A file of more than `max_bytes` is read no further than to tell that it is, and has no hash.
    """

    def __init__(self, path: str | Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self.sha256: str | None = None

    def __call__(self) -> bytes:
        """Read the file; raises `FileUnreadableError`."""
        try:
            data = read_start(self._path, self._max_bytes + 1)
        except OSError as error:
            reason = (error.strerror or "unknown reason").lower()
            raise FileUnreadableError(f"the file cannot be read: {reason}") from None
        if len(data) <= self._max_bytes:
            self.sha256 = hashlib.sha256(data).hexdigest()
        return data


def read_start(path: str | Path, count: int) -> bytes:
    """Return the first bytes of a regular file; raises `FileUnreadableError`, `OSError`."""
    with open_regular_file(path) as file:
        return file.read(count)


def open_regular_file(path: str | Path) -> BinaryIO:
    """Open a file to read that is no pipe or device; raises `FileUnreadableError`, `OSError`."""
    _require_regular(os.stat(path))  # noqa: PTH116 # opening a device may do something
    with ExitStack() as unless_regular:
        file = unless_regular.enter_context(open(path, "rb", opener=_open_at_once))
        _require_regular(os.fstat(file.fileno()))  # it may be another one by now
        unless_regular.pop_all()
        return file


def _require_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise FileUnreadableError("this is not a regular file")


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting: a pipe that nobody writes to would keep a thread for ever."""
    return os.open(path, flags | os.O_NONBLOCK)
