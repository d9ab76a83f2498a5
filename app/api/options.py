"""Options and values of a request, checked; what is wrong is named without echoing it."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError

from app.api.accept import AnswerForm
from app.api.schemas import EmbedOptions, VectorOptions
from app.engine.protocol import ModelInfo
from app.engine.same_space import same_space
from app.errors import (
    InvalidParameterError,
    InvalidRequestError,
    NotAcceptableError,
    SpaceMismatchError,
    UnknownParameterError,
)

MAX_SHOWN_NAME = 64
"""Characters of a name from the client that an answer repeats."""

Model = TypeVar("Model", bound=BaseModel)


def read_query(query: bytes) -> list[tuple[str, str]]:
    """Take a query string apart; raises `InvalidParameterError` where it is not UTF-8."""
    try:
        return parse_qsl(query.decode(), keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise InvalidParameterError("the query string is not UTF-8") from error


def read_options(model: type[Model], fields: Iterable[tuple[str, object]]) -> Model:
    """Read options from a query string and a body; given twice, one must mean the same again.

    Clients that are made from the description, and its page, send an option in both places. One
    that may be null, and is, counts as not given.
    """
    options: dict[str, object] = {}
    for name, value in fields:
        option = validate(model, {name: value}).model_dump()[name]
        if option is not None and options.setdefault(name, option) != option:
            raise InvalidParameterError(f"{name} is given twice, with two values", param=name)
    return model.model_validate(options)


def check_options(options: VectorOptions, form: AnswerForm, info: ModelInfo) -> None:
    """Refuse options that this model, or this form of an answer, cannot meet."""
    if options.expect_space is not None and not same_space(options.expect_space, info.space):
        raise SpaceMismatchError(f"the space here is {info.space}", param="expect_space")
    if isinstance(options, EmbedOptions):
        _check_output(options, form, info)
    if options.dtype == "float16" and form == "json" and options.encoding == "float":
        raise InvalidParameterError(
            "float16 needs encoding=base64 or a binary answer", param="dtype"
        )


def _check_output(options: EmbedOptions, form: AnswerForm, info: ModelInfo) -> None:
    if options.output != "patches" and not info.pooled:
        raise InvalidParameterError(
            "this model has no pooling head, so no pooled vectors; ask for output=patches",
            param="output",
        )
    if options.output == "both" and form != "json":
        raise NotAcceptableError("output=both cannot be one array; ask for JSON", param="output")


def validate(model: type[Model], content: Mapping[str, Any]) -> Model:
    """Validate options or a body; raises the request error for the first thing wrong with it."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise _as_request_error(error) from None


def _as_request_error(error: ValidationError) -> InvalidRequestError:
    # Never the input itself: a wrong value may be a whole image, or a secret.
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    path = show_name(path.removeprefix("."))
    if first["type"] == "extra_forbidden":
        return UnknownParameterError(f"unknown parameter {path}", param=path)
    reason = first["msg"].removeprefix("Value error, ")
    return InvalidParameterError(f"{path}: {reason}", param=path)


def show_name(name: str) -> str:
    """Make a name from the client fit to be named in an answer."""
    return "".join(
        char if char.isascii() and char.isprintable() else "?" for char in name[:MAX_SHOWN_NAME]
    )
