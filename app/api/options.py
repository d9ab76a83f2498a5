"""Options and values of a request, checked; what is wrong is named without echoing it."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError

from app.api.schemas import EmbedOptions
from app.errors import InvalidParameterError, InvalidRequestError, UnknownParameterError

MAX_SHOWN_NAME = 64
"""Characters of a name from the client that an answer repeats."""

Model = TypeVar("Model", bound=BaseModel)


def read_query(query: bytes) -> list[tuple[str, str]]:
    """Take a query string apart; raises `InvalidParameterError` where it is not UTF-8."""
    try:
        return parse_qsl(query.decode(), keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise InvalidParameterError("the query string is not UTF-8") from error


def read_options(fields: Iterable[tuple[str, object]]) -> EmbedOptions:
    """Read options from a query string and a body; given twice, one must mean the same again.

    Clients that are made from the description, and its page, send an option in both places.
    """
    options: dict[str, object] = {}
    for name, value in fields:
        option = validated(EmbedOptions, {name: value}).model_dump()[name]
        if options.setdefault(name, option) != option:
            raise InvalidParameterError(f"{name} is given twice, with two values", param=name)
    return EmbedOptions.model_validate(options)


def validated(model: type[Model], content: Mapping[str, Any]) -> Model:
    """Validate options or a body; raises the request error for the first thing wrong with it."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise _as_request_error(error) from None


def _as_request_error(error: ValidationError) -> InvalidRequestError:
    # Never the input itself: a wrong value may be a whole image, or a secret.
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    path = shown(path.removeprefix("."))
    if first["type"] == "extra_forbidden":
        return UnknownParameterError(f"unknown parameter {path}", param=path)
    reason = first["msg"].removeprefix("Value error, ")
    return InvalidParameterError(f"{path}: {reason}", param=path)


def shown(name: str) -> str:
    """Make a name from the client fit to be named in an answer."""
    return "".join(
        char if char.isascii() and char.isprintable() else "?" for char in name[:MAX_SHOWN_NAME]
    )
