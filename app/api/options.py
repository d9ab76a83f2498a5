"""Options and values of a request, checked; what is wrong is named without echoing it."""

from collections.abc import Mapping, Sequence
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


def read_options(fields: Sequence[tuple[str, str]]) -> EmbedOptions:
    """Read options from the fields of a query string and form, each at most once."""
    options: dict[str, str] = {}
    for name, value in fields:
        if name in options:
            raise InvalidParameterError(f"{shown(name)} is given twice", param=shown(name))
        options[name] = value
    return validated(EmbedOptions, options)


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
