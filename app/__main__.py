"""Command line: `python -m app serve`, `embed`, `search` and `info`, also as `siglip-embed`."""

import os
import signal
from functools import partial
from typing import Annotated, NoReturn

# Python as process 1 of a container ignores a SIGTERM that has no handler, and what follows imports
# for half a second or more. uvicorn handles it while it runs, and raises it again when it is done:
# then nothing is left to wait for, not even a thread that is still loading a model.
# A terminal that closes asks for the same, unless nohup has it that it does not; and what others
# take for questions (a dump of threads, new log files) must not end the process.
_ENDING = [signal.SIGTERM]
if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
    _ENDING.append(signal.SIGHUP)
for number in _ENDING:
    signal.signal(number, lambda number, _: os._exit(128 + number))
for number in (signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, signal.SIG_IGN)

# After each parallel step GNU OpenMP's threads spin for milliseconds, on cores that decoding and
# HTTP need. It reads this when torch loads it: docs/performance.md.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import typer

from app import __version__, exit_codes
from app.allocator import configure_allocators
from app.embed_command import embed
from app.engine.protocol import StartError
from app.environment import (
    Model,
    describe_settings,
    exit_at_once,
    fail_to_start,
    print_unknown_variables,
    read_settings,
    warn_of_unknown_variables,
)
from app.main import create_app
from app.observe.logs import configure_logs
from app.search_command import search
from app.settings import Settings
from app.wire.listeners import open_listeners
from app.wire.open_files import allow_connections
from app.wire.server import Server

cli = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"siglip-embed {__version__}")
        raise typer.Exit


@cli.callback()
def siglip_embed(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Turn images into SigLIP vectors: over HTTP, or files into a file; and search that file."""


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; for SIGLIP_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; for SIGLIP_PORT.")] = None,
    model: Model = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Several processes on this machine, by Ray Serve.")
    ] = False,
    ray_address: Annotated[
        str | None,
        typer.Option(help="Start, or replace, the service on this Ray cluster, and return."),
    ] = None,
    replicas: Annotated[int | None, typer.Option(min=1, help="Processes, with Ray.")] = None,
    cpus_per_replica: Annotated[
        float | None, typer.Option(min=0, help="Cores of each, with Ray; else an equal part.")
    ] = None,
    gpus_per_replica: Annotated[
        float | None, typer.Option(min=0, help="GPUs of each, say 0.25; else an equal part.")
    ] = None,
) -> None:
    """Serve the API; every setting is a SIGLIP_* variable (see `info`), which an option overrides.

    SIGTERM, SIGINT and SIGHUP let accepted requests finish, a second one does not. SIGUSR1 and
    SIGUSR2 are ignored.
    """
    on_ray = ray or ray_address
    if not on_ray and {replicas, cpus_per_replica, gpus_per_replica} != {None}:
        raise typer.BadParameter("replicas and their parts are for --ray or --ray-address")
    settings = read_settings(host=host, port=port, model=model)
    configure_logs(settings.log_level, settings.log_format, nobody_waits=True)
    for number in _ENDING:
        signal.signal(number, lambda number, _: exit_at_once(128 + number))
    warn_of_unknown_variables()
    if on_ray:
        share = (cpus_per_replica, gpus_per_replica)
        _serve_on_ray(settings, replicas or 1, *share, ray_address)
    allow_connections(settings.max_connections)
    configure_allocators()
    exit_code = 0

    def stop(code: int) -> None:
        nonlocal exit_code
        exit_code, server.should_exit = code, True

    try:
        listeners = open_listeners(settings.host, settings.port)
        app = create_app(
            settings,
            on_start_failure=partial(stop, exit_codes.START_FAILED),
            on_engine_lost=partial(stop, exit_codes.ENGINE_LOST),
        )
    except StartError as error:
        fail_to_start(error)
    server = Server(app, settings)
    server.run(listeners)
    if exit_code == exit_codes.ENGINE_LOST:
        exit_at_once(exit_code)  # a thread that hangs in the device would be waited for in vain
    raise typer.Exit(exit_code)


def _serve_on_ray(
    settings: Settings,
    replicas: int,
    cpus: float | None,
    gpus: float | None,
    address: str | None,
) -> NoReturn:
    from app.scale.launch import launch_replicas

    try:
        code = launch_replicas(settings, replicas, cpus, gpus, address)
    except StartError as error:
        fail_to_start(error)
    exit_at_once(code)  # nothing is left to wait for, and Ray's threads take seconds


cli.command()(embed)
cli.command()(search)


@cli.command()
def info(
    models: Annotated[
        bool, typer.Option("--models", help="List the published models and their cost instead.")
    ] = False,
) -> None:
    """Print every setting: its variable, its value, where that is from, what it is for."""
    if models:
        from app.engine.towers.catalogue import describe_models  # it needs torch

        typer.echo(describe_models())
        return
    typer.echo(describe_settings(read_settings()))
    print_unknown_variables()


if __name__ == "__main__":
    cli()
