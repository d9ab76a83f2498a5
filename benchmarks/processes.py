"""Servers as processes of their own: started on a free port, watched in /proc, ended."""

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_START_TIMEOUT_S = 600  # compiling takes minutes
_END_TIMEOUT_S = 30
_POLL_S = 0.02


class Memory(NamedTuple):
    """A resident set in bytes: all of it, and what is of no file."""

    resident: int
    anonymous: int


@dataclass(frozen=True)
class Server:
    """A running server; its process leads a session of its own."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def pause(self) -> None:
        """Stop all its processes in their tracks: some servers are busy when nobody asks them."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let a paused server run within the block."""
        os.killpg(self.process.pid, signal.SIGCONT)
        try:
            yield
        finally:
            self.pause()

    def cpu_s(self, program: str | None = None) -> float:
        """Return CPU seconds of the process and its descendants so far, in steps of 10 ms.

        Of a `program`, of those alone that run it.
        """
        return cpu_s_of(self.process.pid, program)

    def main_thread_cpu_s(self) -> float:
        """Return CPU seconds of the process's first thread so far, to the nanosecond."""
        pid = self.process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9

    def rss_bytes(self) -> int:
        """Return the resident set of the process: VmRSS."""
        return self._status_bytes("VmRSS")

    def peak_rss_bytes(self) -> int:
        """Return the largest resident set that the process has had: VmHWM."""
        return self._status_bytes("VmHWM")

    def memory(self) -> Memory:
        """Return the resident set of the process, and what of it lies in no file."""
        sizes = dict(_sizes_in(Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()))
        return Memory(sizes["Rss"], sizes["Anonymous"])

    def _status_bytes(self, name: str) -> int:
        return dict(_sizes_in(Path(f"/proc/{self.process.pid}/status").read_text()))[name]


def cpu_s_of(root: int, program: str | None = None) -> float:
    """Return CPU seconds of a process and its descendants so far, or of those of a `program`."""
    pids = [pid for pid in _tree(root) if program in (None, _program_of(pid))]
    return sum(_cpu_ticks(pid) for pid in pids) / _TICKS_PER_S


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_server(
    command: Sequence[str],
    environment: Mapping[str, str],
    port: int,
    ready_path: str,
    log: Path,
    start_timeout_s: float = _START_TIMEOUT_S,
) -> Iterator[Server]:
    """Run `python <command>` until `ready_path` answers 200, and end it after the block."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=os.environ | dict(environment),
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(port, process, log)
    try:
        _wait_until_ready(server, ready_path, start_timeout_s)
        yield server
    finally:
        _end(process)


def run_to_end(code: str, arguments: Sequence[str]) -> float:
    """Run a Python program and return how many seconds its process took."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, check=True)
    return time.perf_counter() - start


def _wait_until_ready(server: Server, path: str, timeout_s: float) -> None:
    give_up_at = time.monotonic() + timeout_s
    while time.monotonic() < give_up_at:
        if server.process.poll() is not None:
            raise RuntimeError(f"the server ended while starting:\n{_tail(server.log)}")
        if _is_ready(server.port, path):
            return
        time.sleep(_POLL_S)
    raise RuntimeError(f"the server did not get ready:\n{_tail(server.log)}")


def _is_ready(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the session that the server leads: politely first, then all that is left of it."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGCONT)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(_END_TIMEOUT_S)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])


def _sizes_in(text: str) -> Iterator[tuple[str, int]]:
    """Yield the sizes that a file of /proc/<pid> names, in bytes."""
    for name, size in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE):
        yield name, 1024 * int(size)


def _tree(root: int) -> list[int]:
    """Return a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int(_stat_fields(int(folder.name))[1])
            children.setdefault(parent, []).append(int(folder.name))
    tree = [root]
    for pid in tree:  # grows while it is walked
        tree += children.get(pid, [])
    return tree


def _program_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""  # ended meanwhile


def _cpu_ticks(pid: int) -> int:
    """Return utime + stime of a process and of the children it has waited for."""
    try:
        return sum(int(value) for value in _stat_fields(pid)[11:15])
    except OSError:
        return 0  # ended meanwhile; its parent accounts for it


def _stat_fields(pid: int) -> list[str]:
    """Return /proc/<pid>/stat from `state` on: the name before may hold blanks and brackets."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
