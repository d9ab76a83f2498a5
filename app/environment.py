"""What commands share: the settings from variables and options, and how a command ends."""

import os
import sys
from collections.abc import Collection, Iterator
from difflib import get_close_matches
from typing import Annotated, Any, NoReturn

import structlog
import typer
from pydantic import ValidationError

from app import exit_codes
from app.api.adapters import ADAPTERS
from app.engine.protocol import StartError
from app.intake.formats import load_decoders
from app.observe.logs import flush_logs
from app.settings import Settings

_log = structlog.get_logger(__name__)

_PREFIX = "SIGLIP_"

Model = Annotated[
    str | None, typer.Option(help="Hub id, local folder, or random:SHAPE; for SIGLIP_MODEL.")
]
"""The option that several commands have."""


def read_settings(**options: Any) -> Settings:
    """Read the settings; an option that is not None overrides its variable.

    Ends the command, having said why, when one of them is wrong.
    """
    given = {name: value for name, value in options.items() if value is not None}
    try:
        settings = Settings(**given)
    except ValidationError as error:
        _refuse(error, given.keys())
    _require_decoders(settings)
    _require_adapters(settings)
    return settings


def describe_settings(settings: Settings) -> str:
    """Return a line for each setting: its variable, its value, where from, what it is for."""
    return "\n".join(
        f"{_variable(name)}={_show(getattr(settings, name))}"
        f"  # {_source(settings, name)}; {field.description}"
        for name, field in Settings.model_fields.items()
    )


def warn_of_unknown_variables() -> None:
    """Log the variables that look like settings and are none, each with the nearest that is."""
    for name, nearest in _unknown_variables():
        _log.warning("unknown setting is ignored", variable=name, nearest=nearest)


def print_unknown_variables() -> None:
    """Tell the terminal what `warn_of_unknown_variables` logs."""
    for name, nearest in _unknown_variables():
        hint = f"; the nearest is {nearest}" if nearest else ""
        print(f"{name}: unknown setting is ignored{hint}", file=sys.stderr)


def _unknown_variables() -> Iterator[tuple[str, str | None]]:
    """Yield name and nearest setting, which are read in upper and lower case."""
    for name in sorted(os.environ):
        prefix, short = name[: len(_PREFIX)].upper(), name[len(_PREFIX) :].lower()
        if prefix == _PREFIX and short not in Settings.model_fields:
            # Without the prefix, which all have in common.
            nearest = get_close_matches(short, Settings.model_fields, n=1)
            yield name, _variable(nearest[0]) if nearest else None


def _source(settings: Settings, name: str) -> str:
    return "environment" if name in settings.model_fields_set else "default"


def _require_decoders(settings: Settings) -> None:
    try:
        load_decoders(settings.formats)
    except ImportError as error:
        print(
            f"SIGLIP_FORMATS names {error.name}, which needs pip install '.[{error.name}]'",
            file=sys.stderr,
        )
        raise typer.Exit(exit_codes.BAD_SETTINGS) from None


def _require_adapters(settings: Settings) -> None:
    if unknown := settings.adapters - ADAPTERS.keys():
        print(
            f"SIGLIP_ADAPTERS names {', '.join(sorted(unknown))}; there are {', '.join(ADAPTERS)}",
            file=sys.stderr,
        )
        raise typer.Exit(exit_codes.BAD_SETTINGS)


def _refuse(error: ValidationError, options: Collection[str]) -> NoReturn:
    problems: dict[str, list[str]] = {}
    for problem in error.errors(include_url=False, include_input=False):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        source = f"--{name}" if name in options else _variable(name)
        problems.setdefault(f"{source}: " if name else "", []).append(
            problem["msg"].removeprefix("Value error, ")
        )
    for source, messages in problems.items():
        print(source + ", or: ".join(messages), file=sys.stderr)
    raise typer.Exit(exit_codes.BAD_SETTINGS) from None


def _variable(name: str) -> str:
    return _PREFIX + name.upper()


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, frozenset):
        return ",".join(sorted(value))
    if isinstance(value, tuple):
        return ",".join(value)
    return "" if value is None else str(value)


def fail_to_start(error: StartError) -> NoReturn:
    """End the command, having said why the model cannot be served."""
    _log.critical("cannot start", reason=str(error))
    raise typer.Exit(exit_codes.START_FAILED) from None


def exit_at_once(code: int) -> NoReturn:
    """End without waiting for any thread, but for the last lines of the log."""
    flush_logs()
    os._exit(code)
