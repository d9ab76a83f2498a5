"""Command line: `python -m app serve` and `python -m app info`, also as `siglip-embed`."""

import os
import signal
import sys

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

from app.main import create_app
from app.observe.logs import configure_logs
from app.server import Server
from app.settings import Settings

_EXIT_BAD_SETTINGS = 2
_EXIT_START_FAILED = 3

cli = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@cli.command()
def serve() -> None:
    """Serve the API; every setting is a SIGLIP_* variable (see `info`)."""
    settings = _read_settings()
    configure_logs(settings.log_level, settings.log_format)
    _warn_of_unknown_variables()
    start_failed = False

    def stop() -> None:
        nonlocal start_failed
        start_failed = server.should_exit = True

    app = create_app(settings, on_start_failure=stop)
    server = Server(app, settings)
    server.run()
    if start_failed:
        raise typer.Exit(_EXIT_START_FAILED)


@cli.command()
def info() -> None:
    """Print every setting: its variable, its value, what it is for."""
    settings = _read_settings()
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        shown = ",".join(sorted(value)) if isinstance(value, frozenset) else value
        typer.echo(f"SIGLIP_{name.upper()}={'' if shown is None else shown}  # {field.description}")


def _read_settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False):
            message = problem["msg"].removeprefix("Value error, ")
            variable = f"SIGLIP_{problem['loc'][0]}: ".upper() if problem["loc"] else ""
            print(variable + message, file=sys.stderr)
        raise typer.Exit(_EXIT_BAD_SETTINGS) from None


def _warn_of_unknown_variables() -> None:
    known = {f"SIGLIP_{name.upper()}" for name in Settings.model_fields}
    for name in sorted(os.environ.keys() - known):
        if name.startswith("SIGLIP_"):
            structlog.get_logger(__name__).warning("unknown setting is ignored", variable=name)


if __name__ == "__main__":
    cli()
