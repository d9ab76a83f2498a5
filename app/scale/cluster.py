"""A cluster: one of this machine alone, for as long as it is needed, or one that is there."""

import logging
import math
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn

import ray
import structlog

from app import exit_codes
from app.engine.protocol import StartError

_log = structlog.get_logger(__name__)

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Requests go past Ray's own store. Its default is a third of the memory.
_LEAST_STORE = 100_000_000
# Of Ray's own words the last: those before are where it happened.
_REASON = 2_000
_REMOVALS = 20
_REMOVE_EVERY_S = 0.25
# Of shares such as 0.1, ten of which are a whole.
_ROUNDING = 1e-6


@contextmanager
def joined_cluster(
    address: str | None, folder: Path, store_bytes: int = _LEAST_STORE, cpus: int | None = None
) -> Iterator[None]:
    """Be part of the cluster at `address`, or without one start and end one whose files lie here.

    Such a one has `cpus` to give, or as many as the machine has, and a store of so many bytes for
    what its processes pass on. A signal to end leaves the block by `SystemExit`. Raises
    `StartError`.
    """
    own = {
        "include_dashboard": False,
        "object_store_memory": store_bytes,
        "_temp_dir": str(folder),
        "num_cpus": cpus,
    }
    try:
        ray.init(
            address=address or "local",
            logging_level=logging.WARNING,
            **({} if address else own),
        )
    except (OSError, RuntimeError, ValueError) as error:
        _remove(folder)
        raise StartError(f"Ray does not answer: {error}") from None
    try:
        for number in _ENDING:  # Ray has set its own
            signal.signal(number, _leave)
        yield
    except ray.exceptions.RayError as error:
        _log.critical("Ray failed", reason=str(error)[-_REASON:])
        raise SystemExit(exit_codes.ENGINE_LOST) from None
    finally:
        ray.shutdown()
        _remove(folder)


def _leave(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


def _remove(folder: Path) -> None:
    """Remove a folder into which processes that are ending may still write."""
    for _ in range(_REMOVALS):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(_REMOVE_EVERY_S)


def cluster_address() -> str:
    """Return where others can join this cluster."""
    address: str = ray.get_runtime_context().gcs_address
    return address


def share_of(actors: int, cpus: float | None, gpus: float | None, reserved: int = 0) -> "Share":
    """Return what each actor gets: what is given, else an equal part of all there is.

    So many CPUs are `reserved` for others. Raises `StartError` for what has no room, which Ray
    would wait for in silence.
    """
    if gpus is None:
        per_gpu = math.ceil(actors / max(_total("GPU"), 1))
        gpus = math.floor(100 / per_gpu) / 100 if _total("GPU") else 0
    left = _total("CPU") - reserved
    tried = [cpus] if cpus is not None else range(max(1, int(left / actors)), 0, -1)
    for each in tried:
        if actors * each <= left and _places(each, gpus) >= actors:
            return Share(each, gpus)
    raise StartError(
        f"there is no room for {actors} with {tried[-1]:g} CPUs and {gpus:g} GPUs each: the cluster"
        f" has {_total('CPU'):g} CPUs, {reserved} of them for other work, and {_total('GPU'):g}"
        " GPUs"
    )


class Share(NamedTuple):
    """What one actor is given of a machine."""

    cpus: float
    gpus: float


def _total(resource: str) -> float:
    total: float = ray.cluster_resources().get(resource, 0)
    return total


def _places(cpus: float, gpus: float) -> int:
    """Return how many actors fit, each whole on one machine, and a part of a GPU on one GPU."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(
        min(
            _times(cpus, node.get("CPU", 0)),
            _times(gpus, 1) * int(node.get("GPU", 0))
            if 0 < gpus < 1
            else _times(gpus, node.get("GPU", 0)),
        )
        for node in alive
    )


def _times(part: float, whole: float) -> int:
    """Return how often a part is in a whole; what needs nothing fits any number of times."""
    return int((whole + _ROUNDING) / part) if part else sys.maxsize
