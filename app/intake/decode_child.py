"""One process that decodes images, from its start to its end, and how long it is waited for."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import app
from app.intake.message_line import MessageLine

_START = "from app.intake.decode_worker import main; main()"
# The rest of the environment holds keys and tokens, which no decoder needs.
_ENVIRONMENT = frozenset(
    {
        "GLIBC_TUNABLES",
        "LANG",
        "LC_ALL",
        "LD_LIBRARY_PATH",
        "MALLOC_ARENA_MAX",
        "PYTHONDONTWRITEBYTECODE",
    }
)
# Huge pages for what is large: zeroing a photograph's memory page by page takes a fifth of the time
# that decoding a JPEG does. Who sets the variable has another choice.
_TUNED = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
# Meant for the service, they reach all of its process group; the service ends decoders itself.
_SIGNALS_OF_OTHERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A process that has used no CPU time in so many looks, one a second, hangs.
_LOOK_EVERY_MS = 1000
_IDLE_LOOKS = 5
_STARTING_LOOKS = 60  # to read its modules from a slow disk takes no CPU time either
_SOCKET_BYTES = 2**20  # an image of the model's input size goes in one piece


class HangingError(Exception):
    """The process is waited for, and uses no CPU time."""


class DecodeChild:
    """A running process and the line to it, which raises `HangingError` where it would wait on.

    `stage` is what it was last known to be at.
    """

    def __init__(self, arguments: str) -> None:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
        ours.setblocking(False)
        self.line = MessageLine(ours, self._wait)
        self.stage: Literal["starting", "opening", "decoding"] = "starting"
        with theirs, _blocked_signals():
            try:
                self._process = subprocess.Popen(  # noqa: S603 # our own code
                    [sys.executable, "-c", _START, str(theirs.fileno()), arguments],
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
            except OSError:
                ours.close()
                raise

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    @property
    def cpu_s(self) -> float:
        """CPU seconds that it has used; 0 where the system does not tell."""
        with suppress(OSError):
            return time.clock_gettime((~self.pid << 3) | 2)  # clock_getcpuclockid(3)
        return 0.0

    def end(self) -> int:
        """End it, if it has not ended by itself, and return its exit code; from any thread."""
        code = self._process.poll()
        self._process.kill()
        return self._process.wait() if code is None else code

    def _wait(self, event: int) -> None:
        """Wait for the line as long as the process computes."""
        poll = select.poll()
        poll.register(self.line, event)
        looks = _STARTING_LOOKS if self.stage == "starting" else _IDLE_LOOKS
        used_s, idle_looks = -1.0, 0
        while not poll.poll(_LOOK_EVERY_MS):
            before_s, used_s = used_s, self.cpu_s
            idle_looks = idle_looks + 1 if used_s == before_s else 0
            if idle_looks == looks:
                raise HangingError


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """Let a process be started that never hears of signals to its group."""
    before = signal.pthread_sigmask(signal.SIG_SETMASK, _SIGNALS_OF_OTHERS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _environment() -> dict[str, str]:
    """Make the environment of a process that finds this code and knows no secrets."""
    given = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    root = Path(app.__file__).parents[1]  # where an editable install has it, which no path says
    return _TUNED | given | {"PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
