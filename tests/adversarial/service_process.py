"""The service as a process of its own, whose memory, processor time and log can be looked at."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

_REPOSITORY = Path(__file__).parents[2]
_START_S = 90
_CLIENT_TIMEOUT_S = 60
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """What the service spent: seconds of processor time, and bytes at the peak above the start."""

    cpu_s: float
    peak_bytes: int


@dataclass(frozen=True)
class ServiceProcess:
    """A running service, a client for it, and the file it logs to."""

    process: subprocess.Popen[bytes]
    client: httpx.Client
    log_file: Path

    @property
    def decoders(self) -> list[int]:
        """The ids of the processes that decode for it."""
        children = self.proc / "task" / str(self.process.pid) / "children"
        return [int(pid) for pid in children.read_text().split()]

    @property
    def log(self) -> str:
        """All that the process has written so far, to standard output and standard error."""
        return self.log_file.read_text()

    @property
    def resident_bytes(self) -> int:
        return self._status_bytes("VmRSS")

    def cost_of(self, work: Callable[[], httpx.Response]) -> tuple[httpx.Response, Cost]:
        """Do some work with the service and tell what it cost it, its decoders included."""
        for proc in self._procs:
            (proc / "clear_refs").write_text("5")  # begins a new VmHWM
        resident, cpu_s = self.resident_bytes, self._cpu_s()
        answer = work()
        return answer, Cost(self._cpu_s() - cpu_s, self._status_bytes("VmHWM") - resident)

    @property
    def proc(self) -> Path:
        return Path("/proc") / str(self.process.pid)

    @property
    def _procs(self) -> list[Path]:
        return [self.proc, *(Path("/proc") / str(pid) for pid in self.decoders)]

    def _status_bytes(self, name: str) -> int:
        lines = [
            line for proc in self._procs for line in (proc / "status").read_text().splitlines()
        ]
        return sum(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024

    def _cpu_s(self) -> float:
        """Add up user and system time, of those also that have ended."""
        ended = self._ticks(self.proc, slice(13, 15))
        return (
            ended + sum(self._ticks(proc, slice(11, 13)) for proc in self._procs)
        ) / _TICKS_PER_S

    @staticmethod
    def _ticks(proc: Path, fields: slice) -> int:
        return sum(map(int, (proc / "stat").read_text().rpartition(")")[2].split()[fields]))


@contextmanager
def run_service_process(
    folder: Path,
    *,
    open_files: int | None = None,
    max_file_bytes: int | None = None,
    **variables: str,
) -> Iterator[ServiceProcess]:
    """Serve a tiny model with random weights until the block ends, under resource limits.

    `open_files` and `max_file_bytes` are what `ulimit` sets; the log then goes through a pipe, as a
    container's does.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    own = {
        "SIGLIP_MODEL": "random:tiny-patch16-64",
        "SIGLIP_PORT": str(port),
        "SIGLIP_DEVICE": "cpu",
        "SIGLIP_DTYPE": "float32",
        "OMP_NUM_THREADS": "1",
    }
    limits = ["prlimit"]
    limits += [] if open_files is None else [f"--nofile={open_files}:{open_files}"]
    limits += [] if max_file_bytes is None else [f"--fsize={max_file_bytes}:{max_file_bytes}"]
    log_file = folder / "service.log"
    with (
        log_file.open("wb") as log,
        subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=log) as pipe,
        subprocess.Popen(
            [*limits, sys.executable, "-m", "app", "serve"],
            cwd=_REPOSITORY,
            env={**os.environ, **own, **variables},
            stdout=pipe.stdin,
            stderr=subprocess.STDOUT,
        ) as process,
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=_CLIENT_TIMEOUT_S, trust_env=False
        ) as client,
    ):
        service = ServiceProcess(process, client, log_file)
        try:
            _wait_until_ready(service)
            yield service
        finally:
            process.kill()
            process.wait()


def _wait_until_ready(service: ServiceProcess) -> None:
    give_up_at = time.monotonic() + _START_S
    while time.monotonic() < give_up_at:
        assert service.process.poll() is None, service.log
        with suppress(httpx.TransportError):
            if service.client.get("/readyz").status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"never ready: {service.log}")
