"""JSON bodies, taken apart at a cost that is in proportion to what a request may hold."""

import codecs
import re
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from app.api.media_type import is_image
from app.api.options import MAX_SHOWN_NAME, show_name
from app.errors import InvalidJsonError, UnknownParameterError

# Commas and brackets: an honest item has a few, around its keys, in its data URI and in its id.
_MAX_SEPARATORS_PER_ITEM = 300
# Possessive, and run by run: forty times as fast as character by character. One that does not end
# counts as well: else it would be looked for from each of its quotes, through all of the body.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)


def parse_json(
    body: bytes, max_items: int, example: str, *, holds_prose: bool = False
) -> dict[str, Any]:
    """Read a JSON object of at most so many items; `example` says how one is sent.

    Where strings hold prose, its commas do not count. Raises `InvalidJsonError`.
    """
    most = _MAX_SEPARATORS_PER_ITEM * (max_items + 1)
    if _count_separators(body) > most and not (
        holds_prose and _count_separators(_STRING.sub(b"", body, count=most)) <= most
    ):
        # As Python objects they would take twenty times the body's memory, and seconds to make.
        raise InvalidJsonError("the body holds far too many values")
    try:
        content = orjson.loads(body.removeprefix(codecs.BOM_UTF8))
    except orjson.JSONDecodeError as error:
        if is_image(body):
            raise InvalidJsonError("the body is an image, not JSON; send it as image/*") from error
        raise InvalidJsonError("the body is not valid JSON") from error
    if not isinstance(content, dict):
        raise InvalidJsonError(f"the body is not a JSON object; send {example}")
    return content


def refuse_unknown_names(names: Iterable[str], known: Sequence[str]) -> None:
    """Refuse a key or field that there is not, and say which there are."""
    for name in names:
        if name not in known:
            raise UnknownParameterError(
                f"unknown parameter {show_name(name)}; there are {', '.join(known)}",
                param=show_name(name),
            )


def refuse_long_names(items: object) -> None:
    """Refuse names of megabytes, of which validation would make several copies."""
    for item in items if isinstance(items, list) else []:
        for name in item if isinstance(item, dict) else ():
            if len(name) > MAX_SHOWN_NAME:
                raise UnknownParameterError(
                    f"unknown parameter {show_name(name)}", param=show_name(name)
                )


def _count_separators(body: bytes) -> int:
    return sum(body.count(separator) for separator in (b",", b"[", b"{"))
