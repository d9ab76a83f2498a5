"""A folder that one process keeps for itself, for as long as it lives."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keep a folder, which is made if there is none, for the block.

    Raises `BlockingIOError` when another process has it, and `OSError`.
    """
    folder.mkdir(exist_ok=True)
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The process that had it may have removed it since it was opened here, and a third one may
        # have made another and locked that.
        if not (folder.exists() and os.path.samestat(os.fstat(held), folder.stat())):
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))
        yield
    finally:
        os.close(held)
