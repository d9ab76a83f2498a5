"""Stage 8: images per second over HTTP: several images a request, several processes a device."""

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from benchmarks.client import put_under_load
from benchmarks.gpu.material import draw_jpeg
from benchmarks.gpu.stage import Plan, Results
from benchmarks.messages import multipart_request
from benchmarks.processes import Server, cpu_s_of, free_port, running_server
from benchmarks.report import Row
from benchmarks.timing import quantile

_IMAGES_IN_FLIGHT = 256  # of a process, as far as connections allow
_CONNECTIONS = (4, 64)
_START_TIMEOUT_S = 80.0  # less than a stage has to end


@dataclass(frozen=True)
class _Target:
    """A server, for a client in another process."""

    port: int
    pid: int

    def cpu_s(self) -> float:
        """Return its CPU seconds so far, with those of the processes that decode for it."""
        return cpu_s_of(self.pid)


def measure(plan: Plan, results: Results) -> None:
    """Start so many processes, each with the whole model, and load them all at once."""
    jpeg = draw_jpeg()
    with results.table(f"{plan.shape} over HTTP, 640x480 JPEGs, pooled vectors") as add:
        for processes in plan.processes:
            with (
                results.attempt(f"{processes} processes"),
                _running(plan, processes) as servers,
                _clients(processes) as clients,
            ):
                for images in plan.images_of_request:
                    add(_row(plan, servers, clients, [jpeg] * images))


@contextmanager
def _running(plan: Plan, processes: int) -> Iterator[list[Server]]:
    with ExitStack() as stack, ThreadPoolExecutor(processes) as starting:
        contexts = [_start(plan, number) for number in range(processes)]
        yield list(starting.map(stack.enter_context, contexts))


@contextmanager
def _start(plan: Plan, number: int) -> Iterator[Server]:
    port = free_port()
    environment = {
        "SIGLIP_MODEL": f"random:{plan.shape}",
        "SIGLIP_DEVICE": plan.device,
        "SIGLIP_PORT": str(port),
        "SIGLIP_QUEUE_IMAGES": "4096",
        "SIGLIP_MAX_BODY_BYTES": str(2**27),
        "SIGLIP_LOG_LEVEL": "warning",  # as "NO CUDA GRAPHS" is
    }
    log = plan.out / f"gpu_service_{number}.log"
    command = ("-m", "app", "serve")
    with running_server(command, environment, port, "/readyz", log, _START_TIMEOUT_S) as server:
        yield server


@contextmanager
def _clients(processes: int) -> Iterator[ProcessPoolExecutor]:
    """A client for each server: one Python process could not ask enough."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as clients:
        yield clients


def _row(
    plan: Plan, servers: Sequence[Server], clients: ProcessPoolExecutor, images: list[bytes]
) -> Row:
    connections = min(max(_IMAGES_IN_FLIGHT // len(images), _CONNECTIONS[0]), _CONNECTIONS[1])
    request = multipart_request("/embed", images)
    loads = list(
        clients.map(
            put_under_load,
            [_Target(server.port, server.process.pid) for server in servers],
            [request] * len(servers),
            [connections] * len(servers),
            [plan.window_s] * len(servers),
        )
    )
    latencies_s = [latency_s for load in loads for latency_s in load.latencies_s]
    per_s = sum(len(images) / load.s_per_request for load in loads)
    return {
        "processes": len(servers),
        "images a request": len(images),
        "connections of each": connections,
        "images/s": per_s,
        "p50 ms": 1000 * quantile(latencies_s, 0.5) if latencies_s else None,
        "p99 ms": 1000 * quantile(latencies_s, 0.99) if latencies_s else None,
        "servers' cores": sum(load.server_cpu_s for load in loads) / plan.window_s,
        "clients' cores": sum(load.client_cpu_s for load in loads) / plan.window_s,
    }
