"""How commands come to Ray, which is an extra and reads its variables when it is imported."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import typer

from app import exit_codes
from app.scale.request import ScaleRequest
from app.scale.variables import set_serve_variables, set_variables
from app.settings import Settings


def launch_replicas(
    settings: Settings,
    replicas: int,
    cpus: float | None,
    gpus: float | None,
    address: str | None,
) -> int:
    """Serve with Ray Serve and return the exit code; raises `StartError`."""
    with _own_folder() as folder:
        set_serve_variables(folder, settings.drain_delay_s, settings.max_connections)
        try:
            from app.scale.serving import Scale, serve_on_ray
        except ModuleNotFoundError as error:
            _ask_to_install(error)
        return serve_on_ray(settings, Scale(replicas, cpus, gpus, address), folder)


def launch_bulk(request: ScaleRequest, settings: Settings) -> int:
    """Embed files with Ray Data and return the exit code; raises `BulkError`, `StartError`."""
    with _own_folder() as folder:
        try:
            from app.scale.embedding import embed_on_ray
        except ModuleNotFoundError as error:
            _ask_to_install(error)
        return embed_on_ray(request, settings, folder)


@contextmanager
def _own_folder() -> Iterator[Path]:
    """Lend a folder of this user's own, with a short name: sockets' names are limited."""
    set_variables()
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _ask_to_install(error: ModuleNotFoundError) -> NoReturn:
    if (error.name or "").partition(".")[0] != "ray":
        raise error
    print("--ray needs Ray, which is an extra: pip install '.[ray]'", file=sys.stderr)
    raise typer.Exit(exit_codes.BAD_SETTINGS) from None
