"""`siglip-embed serve --ray` as a process, its replicas, and clients that keep asking it."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx

REPOSITORY = Path(__file__).parents[2]
WAIT_S = 400  # most of it for machines that others keep busy
_STOP_S = 120
# Between a client's requests: what is tested is not speed, and replicas start beside them.
_PAUSE_S = 0.05

_FIRST_PORT = 22_000
_REPLICA_PORTS = 20

Found = TypeVar("Found")


@dataclass(frozen=True)
class RayService:
    """A running launch: its process, its variables, its ports and the file it logs to."""

    process: subprocess.Popen[bytes]
    variables: dict[str, str]
    port: int
    replica_ports: range
    log_file: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        """Where the cluster can be joined."""
        address: str = self.wait_for_line("replicas are ready")["cluster"]
        return address

    @property
    def replicas(self) -> set[int]:
        """The ids of the processes that serve."""
        return {pid for pid in descendants(self.process.pid) if "ServeReplica" in command_of(pid)}

    def wait_for_line(self, event: str) -> dict[str, str]:
        """Wait for a line of the log and return it."""
        return wait_for(lambda: self._line(event), event, self.process)

    def replica_metrics(self) -> dict[int, str]:
        """Return the metrics of each replica that answers, by the port that is its own."""
        pages = {}
        for port in self.replica_ports:
            try:
                pages[port] = _get_metrics(port)
            except httpx.TransportError:
                continue
        return pages

    def haproxy_metrics(self) -> str:
        """Return those of HAProxy itself."""
        return _get_metrics(int(self.variables["RAY_SERVE_HAPROXY_METRICS_PORT"]))

    def wait_for_haproxy(self) -> None:
        """Wait until it has all replicas, and Ray's own proxy: with each it closes connections."""
        all_up = 'haproxy_backend_agg_server_check_status{proxy="http-siglip-embed",state="UP"} 3'
        wait_for(lambda: all_up in self.haproxy_metrics().splitlines(), "all up", self.process)

    def redeploy(self) -> None:
        """Deploy the service anew on the cluster that runs it, and wait until that is done."""
        command = [*_COMMAND, "--replicas", "2", "--cpus-per-replica", "0.5"]
        subprocess.run(
            [*command, "--ray-address", self.address],
            env=self.variables,
            cwd=REPOSITORY,
            check=True,
            timeout=WAIT_S,
        )

    def _line(self, event: str) -> dict[str, str]:
        for line in self.log_file.read_text().splitlines():
            if f'"event": "{event}"' in line and line.startswith("{"):
                found: dict[str, str] = json.loads(line)
                return found
        return {}


@dataclass
class Load:
    """What clients got that each ask again as soon as they have an answer."""

    answered: int = 0
    lost: list[str] = field(default_factory=list)


_COMMAND = [sys.executable, "-m", "app", "serve"]


@contextmanager
def run_on_ray(folder: Path, **settings: str) -> Iterator[RayService]:
    """Serve with two replicas on ports of their own, until the block ends."""
    ports = _free_ports(3 + _REPLICA_PORTS)
    first = ports[3]
    variables = os.environ | {
        "SIGLIP_PORT": str(ports[0]),
        "SIGLIP_TEXT": "off",
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports[1]),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports[2]),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(ports[-1]),
        **{f"SIGLIP_{name.upper()}": value for name, value in settings.items()},
    }
    log_file = folder / "log"
    command = [*_COMMAND, "--ray", "--replicas", "2", "--cpus-per-replica", "0.5"]
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command, env=variables, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT
        )
    service = RayService(process, variables, ports[0], ports[3:], log_file)
    try:
        service.wait_for_line("replicas are ready")
        service.wait_for_haproxy()
        yield service
    finally:
        started = descendants(process.pid)
        process.terminate()
        try:
            process.wait(_STOP_S)
        finally:
            left = [pid for pid in started if Path("/proc", str(pid)).exists()]
            for pid in [process.pid, *left]:
                kill(pid)
    assert not left, f"processes were left: {left}"


@contextmanager
def asked(url: str, body: bytes, clients: int) -> Iterator[Load]:
    """Keep a service busy for the block's length."""
    load, stopped, lock = Load(), threading.Event(), threading.Lock()

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            while not stopped.is_set():
                what = _ask(client, body)
                with lock:
                    load.answered += what is None
                    load.lost += [what] if what else []
                stopped.wait(_PAUSE_S)

    with ThreadPoolExecutor(clients) as pool:
        asking = [pool.submit(ask) for _ in range(clients)]
        try:
            yield load
        finally:
            stopped.set()
    for one in asking:
        one.result()


def wait_for(look: Callable[[], Found], what: str, process: subprocess.Popen[bytes]) -> Found:
    """Wait until a look finds something, and return it."""
    give_up_at = time.monotonic() + WAIT_S
    while not (found := look()):
        assert process.poll() is None, f"the service ended before: {what}"
        assert time.monotonic() < give_up_at, f"never: {what}"
        time.sleep(0.1)
    return found


def descendants(pid: int) -> set[int]:
    """Return the ids of a process's children, and of theirs."""
    parents = dict(_parents())
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def _parents() -> Iterator[tuple[int, int]]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            yield int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue


def command_of(pid: int) -> str:
    """Return what a process calls itself."""
    try:
        return Path("/proc", str(pid), "cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _get_metrics(port: int) -> str:
    return httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text


def _ask(client: httpx.Client, body: bytes) -> str | None:
    """Return what went wrong, if anything did."""
    try:
        answer = client.post("/embed", content=body, headers={"content-type": "image/png"})
    except httpx.HTTPError as error:
        return repr(error)
    return None if answer.status_code == 200 else f"{answer.status_code} {answer.text}"


def _free_ports(count: int) -> range:
    """Find neighbouring ports that nobody listens on, nor is given by chance, as Ray's own are."""
    for first in range(_FIRST_PORT + 50 * (os.getpid() % 100), 32_000, 50):
        if all(_is_free(port) for port in range(first, first + count)):
            return range(first, first + count)
    raise AssertionError("all ports are taken")


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("", port)).close()
    except OSError:
        return False
    return True


def kill(pid: int) -> None:
    """End a process at once, if it is there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
