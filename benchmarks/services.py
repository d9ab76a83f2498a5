"""The services under comparison: how each is started, and the request it is sent."""

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.messages import json_request, multipart_request, raw_request
from benchmarks.processes import Server, free_port, running_server

OURS = "ours"
OURS_RAW = "ours, raw body"
PLAIN = "plain"
PLAIN_ONE_THREAD = "plain, OMP_NUM_THREADS=1"
LITSERVE = "LitServe"


@dataclass(frozen=True)
class Service:
    """A running server and the request for one image."""

    server: Server
    request: bytes


@dataclass(frozen=True)
class _Start:
    command: tuple[str, ...]
    ready_path: str = "/readyz"
    environment: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def running_services(
    folder: Path, jpeg: bytes, names: list[str], queue_images: str = "256"
) -> Iterator[dict[str, Service]]:
    """Start all services on the checkpoint in `folder`; at the end all are stopped.

    All get the same request, a form with one image, but for LitServe; ours is also sent the bare
    image, which only it understands. Only the one in use runs, see `Server.running`.
    `queue_images` is ours: by default it would refuse what it cannot work off in three seconds, and
    the others let all wait.
    """
    form, json = multipart_request("/embed", [jpeg]), json_request("/embed", jpeg)
    with ExitStack() as running:
        services: dict[str, Service] = {}
        for name in names:
            server = running.enter_context(_running(name, folder, queue_images))
            server.pause()
            services[name] = Service(server, json if name == LITSERVE else form)
        if OURS in services:
            services[OURS_RAW] = Service(services[OURS].server, raw_request("/embed", jpeg))
        yield services


def installed_services() -> list[str]:
    """Name the services that can be started here, ours first."""
    litserve = [LITSERVE] if importlib.util.find_spec("litserve") is not None else []
    return [OURS, PLAIN, PLAIN_ONE_THREAD, *litserve]


@contextmanager
def _running(name: str, folder: Path, queue_images: str) -> Iterator[Server]:
    port = free_port()
    start = _start_of(name, folder, port, queue_images)
    log = folder / f"{name.replace(' ', '-')}.log"
    with running_server(start.command, start.environment, port, start.ready_path, log) as server:
        yield server


def _start_of(name: str, folder: Path, port: int, queue_images: str) -> _Start:
    """Return how to start a service: everything that is not named here is its default."""
    if name == OURS:
        environment = {
            "SIGLIP_MODEL": str(folder),
            "SIGLIP_PORT": str(port),
            "SIGLIP_DEVICE": "cpu",
            "SIGLIP_QUEUE_IMAGES": queue_images,
        }
        return _Start(("-m", "app", "serve"), environment=environment)
    if name == LITSERVE:
        command = ("-m", "benchmarks.peers.litserve_service", str(folder), str(port))
        return _Start(command, ready_path="/health")
    command = ("-m", "benchmarks.peers.plain_service", str(folder), str(port))
    threads = {"OMP_NUM_THREADS": "1"} if name == PLAIN_ONE_THREAD else {}
    return _Start(command, environment=threads)
