"""The service as replicas of Ray Serve: the same application in each, HAProxy before them.

Ray starts, places, replaces and stops replicas, and HAProxy spreads requests over them. Inside a
replica all is as in a single process: its own queue, batches, limits and answers.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from fastapi import FastAPI
from ray import serve
from ray.serve.config import BackpressureConfig
from ray.serve.exceptions import RayServeException

from app import exit_codes
from app.allocator import configure_allocators
from app.api.context import context_of
from app.engine.protocol import StartError
from app.main import create_app, load_towers
from app.observe.logs import configure_logs
from app.scale.balancer import end_balancers
from app.scale.cluster import Share, cluster_address, joined_cluster, share_of
from app.settings import Settings
from app.wire.listeners import open_listeners
from app.wire.open_files import allow_connections

_log = structlog.get_logger(__name__)

_APPLICATION = "siglip-embed"
_HEALTH_EVERY_S = 2.0
_HEALTH_TIMEOUT_S = 10.0
# A replica that cannot load its model will not load it the next time either.
_STARTS = 2
_LOOK_EVERY_S = 2.0
# What `auto` makes of a batch at most.
_LARGEST_AUTO = 64
# Beyond those in the application. Ray reads their bodies at once, so these are few.
_QUEUED = 64
_RETRY_AFTER_S = 5


class Scale(NamedTuple):
    """How many replicas, what each is given of a machine, and the cluster, if there is one."""

    replicas: int
    cpus: float | None = None
    gpus: float | None = None
    address: str | None = None


class Replica:
    """What Ray asks of a replica; `app` is the application, which Ray puts there."""

    app: FastAPI

    def check_health(self) -> None:
        """Raise when only a new process will do, as /livez says it."""
        engine = context_of(self.app).engine
        if engine.needs_restart:
            raise RuntimeError(f"the engine is {engine.status}")


def serve_on_ray(settings: Settings, scale: Scale, folder: Path) -> int:
    """Serve until a signal, then let accepted requests finish; return the exit code.

    On a cluster that is there the application is started, or replaced replica by replica, and stays
    when this returns. Raises `StartError`.
    """
    if not scale.address:
        for listener in open_listeners(settings.host, settings.port):  # told now, not by HAProxy
            listener.close()
    with joined_cluster(scale.address, folder):
        gpus = 0 if settings.device == "cpu" else scale.gpus
        share = share_of(scale.replicas, scale.cpus, gpus)
        _deploy(settings, scale.replicas, share)
        if scale.address:
            return 0
        code = _wait_for_end()
        _log.info("draining")
        time.sleep(settings.drain_delay_s)
        end_balancers(folder, settings.grace_s)
        serve.shutdown()
        return code


def _deploy(settings: Settings, replicas: int, share: Share) -> None:
    logs = _log_options(settings)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        serve.start(
            proxy_location="EveryNode",
            http_options={"host": settings.host, "port": settings.port},
            logging_config=logs,
        )
        serve.run(_bind(settings, replicas, share, logs), name=_APPLICATION, route_prefix="/")
    except (RuntimeError, TimeoutError) as error:
        raise StartError(f"the replicas do not start: {error}") from None
    _log.info("replicas are ready", replicas=replicas, **share._asdict(), cluster=cluster_address())


def _bind(settings: Settings, replicas: int, share: Share, logs: dict[str, Any]) -> Any:
    """Describe the deployment."""
    batch = _LARGEST_AUTO if settings.max_batch_size == "auto" else settings.max_batch_size
    options: dict[str, Any] = {
        "name": "Replica",
        "num_replicas": replicas,
        "ray_actor_options": {"num_cpus": share.cpus, "num_gpus": share.gpus},
        # The application's own admission is to refuse, in the contract's words and with an estimate
        # of the wait: it holds fewer requests than that. With fewer than two batches the device
        # would have to wait.
        "max_ongoing_requests": max(settings.max_connections, 2 * batch),
        "max_queued_requests": _QUEUED,
        "backpressure_config": BackpressureConfig(status_code=429, retry_after_s=_RETRY_AFTER_S),
        "graceful_shutdown_timeout_s": settings.drain_delay_s + settings.grace_s,
        "health_check_period_s": _HEALTH_EVERY_S,
        "health_check_timeout_s": _HEALTH_TIMEOUT_S,
        "max_constructor_retry_count": _STARTS,
        "logging_config": logs,
    }
    return serve.deployment(**options)(serve.ingress(_app_factory(settings))(Replica)).bind()


def _app_factory(settings: Settings) -> Callable[[], FastAPI]:
    """Return what a replica makes its application with: Ray wants a function without arguments.

    The settings travel with it, of the API keys their digests.
    """

    def make_app() -> FastAPI:
        configure_logs(settings.log_level, settings.log_format)
        configure_allocators()
        allow_connections(settings.max_connections)
        towers = load_towers(settings)  # before the replica is ready, which then it is at once
        return create_app(settings, towers.images, towers.texts)

    return make_app


def _log_options(settings: Settings) -> dict[str, Any]:
    """Return how Ray itself logs: what is wrong; the application has a line for each request."""
    return {
        "encoding": "JSON" if settings.log_format == "json" else "TEXT",
        "log_level": "WARNING",
        "enable_access_log": False,
    }


def _wait_for_end() -> int:
    """Watch the replicas until a signal, and return 0, or until they are lost."""
    try:
        while _is_running():
            time.sleep(_LOOK_EVERY_S)
    except SystemExit:
        return 0
    return exit_codes.ENGINE_LOST


def _is_running() -> bool:
    with suppress(RayServeException, KeyError):
        return bool(serve.status().applications[_APPLICATION].status != "DEPLOY_FAILED")
    return False
