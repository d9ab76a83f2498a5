"""Command line: `python -m app serve` and `python -m app info`, also as `siglip-embed`."""

import os
import signal
import sys
from functools import partial
from typing import Annotated

# Python as process 1 of a container ignores a SIGTERM that has no handler, and what follows imports
# torch for a second or more. uvicorn handles it while it runs, and raises it again when it is done:
# then nothing is left to wait for, not even a thread that is still loading a model.
signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))

# After each parallel step GNU OpenMP's threads spin for milliseconds, on cores that decoding and
# HTTP need. It reads this when torch loads it: docs/performance.md.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import structlog
import typer
from pydantic import ValidationError

from app.allocator import return_large_blocks
from app.engine.catalogue import describe_models
from app.main import create_app
from app.observe.logs import configure_logs
from app.open_files import allow_connections
from app.server import Server
from app.settings import Settings

_EXIT_BAD_SETTINGS = 2
_EXIT_START_FAILED = 3
_EXIT_ENGINE_LOST = 70  # EX_SOFTWARE of sysexits.h; whoever supervises the process starts it anew

cli = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@cli.command()
def serve() -> None:
    """Serve the API; every setting is a SIGLIP_* variable (see `info`)."""
    settings = _read_settings()
    configure_logs(settings.log_level, settings.log_format)
    _warn_of_unknown_variables()
    allow_connections(settings.max_connections)
    return_large_blocks()
    exit_code = 0

    def stop(code: int) -> None:
        nonlocal exit_code
        exit_code, server.should_exit = code, True

    app = create_app(
        settings,
        on_start_failure=partial(stop, _EXIT_START_FAILED),
        on_engine_lost=partial(stop, _EXIT_ENGINE_LOST),
    )
    server = Server(app, settings)
    server.run()
    if exit_code == _EXIT_ENGINE_LOST:
        os._exit(exit_code)  # a thread that hangs in the device would be waited for in vain
    raise typer.Exit(exit_code)


@cli.command()
def info(
    models: Annotated[
        bool, typer.Option("--models", help="List the published models and their cost instead.")
    ] = False,
) -> None:
    """Print every setting: its variable, its value, what it is for."""
    if models:
        typer.echo(describe_models())
        return
    settings = _read_settings()
    for name, field in Settings.model_fields.items():
        shown = _show(getattr(settings, name))
        typer.echo(f"SIGLIP_{name.upper()}={shown}  # {field.description}")


def _show(value: object) -> str:
    if isinstance(value, frozenset):
        return ",".join(sorted(value))
    if isinstance(value, tuple):
        return ",".join(value)
    return "" if value is None else str(value)


def _read_settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        problems: dict[str, list[str]] = {}
        for problem in error.errors(include_url=False, include_input=False):
            variable = f"SIGLIP_{problem['loc'][0]}: ".upper() if problem["loc"] else ""
            problems.setdefault(variable, []).append(problem["msg"].removeprefix("Value error, "))
        for variable, messages in problems.items():
            print(variable + ", or: ".join(messages), file=sys.stderr)
        raise typer.Exit(_EXIT_BAD_SETTINGS) from None


def _warn_of_unknown_variables() -> None:
    known = {f"SIGLIP_{name.upper()}" for name in Settings.model_fields}
    for name in sorted(os.environ.keys() - known):
        if name.startswith("SIGLIP_"):
            structlog.get_logger(__name__).warning("unknown setting is ignored", variable=name)


if __name__ == "__main__":
    cli()
