"""A thread that is busy in Python: what the interpreter's lock costs those beside it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def busy_thread() -> Iterator[None]:
    """Run a thread that computes in Python within the block, and gives up the lock when asked."""
    stopping = threading.Event()
    thread = threading.Thread(target=_count_until, args=(stopping,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def _count_until(stopping: threading.Event) -> int:
    count = 0
    while not stopping.is_set():
        count += 1
    return count
