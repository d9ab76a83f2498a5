"""A thread that is busy in Python: what the interpreter's lock costs those beside it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_TURN_S = 0.001


@contextmanager
def busy_thread(share: float = 1.0) -> Iterator[None]:
    """Run a thread within the block that computes in Python for this share of the time.

    It gives up the interpreter's lock when asked to, and while it sleeps.
    """
    stopping = threading.Event()
    thread = threading.Thread(target=_count_until, args=(stopping, share), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def _count_until(stopping: threading.Event, share: float) -> None:
    rest_s = _TURN_S * (1 - share) / share
    turn_ends = time.perf_counter() + _TURN_S
    while not stopping.is_set():
        if rest_s and time.perf_counter() > turn_ends:
            time.sleep(rest_s)
            turn_ends = time.perf_counter() + _TURN_S
