"""The end of HAProxy: Ray kills it, with all that it still has to pass on."""

import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

_LOOK_EVERY_S = 0.1
_ANSWER_S = 5.0


def end_balancers(folder: Path, grace_s: float) -> None:
    """Have the HAProxy whose files are here accept no more; wait for its requests, or `grace_s`."""
    ending = [_process_of(admin) for admin in folder.rglob("admin.sock")]
    for pid in filter(None, ending):
        os.kill(pid, signal.SIGUSR1)  # its own word for that
    give_up_at = time.monotonic() + grace_s
    while any(map(_is_alive, ending)) and time.monotonic() < give_up_at:
        time.sleep(_LOOK_EVERY_S)


def _process_of(admin: Path) -> int:
    """Ask a HAProxy for the id of its process; 0 if it does not say."""
    with suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ANSWER_S)
        connection.connect(str(admin))
        connection.sendall(b"show info\n")
        connection.shutdown(socket.SHUT_WR)
        lines = connection.makefile().read().splitlines()
        return int(next(line for line in lines if line.startswith("Pid:")).removeprefix("Pid:"))
    return 0


def _is_alive(pid: int) -> bool:
    return pid != 0 and Path("/proc", str(pid)).exists()
