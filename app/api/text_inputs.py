"""The two forms of a request to POST /embed/text, read into one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from app.api.json_body import parse_json, refuse_long_names, refuse_unknown_names
from app.api.media_type import is_json, media_type_of
from app.api.options import read_options, read_query, validate
from app.api.schemas import EmbedTextBody, VectorOptions
from app.errors import (
    BodyTooLargeError,
    InvalidParameterError,
    NoTextsError,
    TextTooLargeError,
    TooManyTextsError,
    UnsupportedMediaTypeError,
)

_JSON_KEYS = ("texts", "text", *VectorOptions.model_fields)
_EXAMPLE = 'texts: {"texts": ["a red bicycle"]}'
_CHARSETS = ("utf-8", "utf8", "us-ascii")
# Most bytes in JSON for one of UTF-8, but for control characters, and what stands around a text.
_JSON_BYTES_PER_BYTE = 3
_JSON_BYTES_PER_TEXT = 2**10


@dataclass(frozen=True)
class TextLimits:
    """Limits of one request: texts, and UTF-8 bytes of one text."""

    max_texts: int
    max_text_bytes: int


@dataclass(frozen=True)
class TextInput:
    """What a request asks for: options, and its texts with the caller's ids."""

    options: VectorOptions
    texts: Sequence[str]
    ids: Sequence[str | None]


async def read_texts(request: Request, limits: TextLimits) -> TextInput:
    """Read a request of either form; raises an `InvalidRequestError`."""
    media_type = media_type_of(request)
    body = await request.body()
    query = read_query(request.scope["query_string"])
    if is_json(media_type):
        return _read_json(body, query, limits)
    # What has no name is a text as well: RFC 9110, section 8.3.
    if media_type not in ("text/plain", ""):
        raise UnsupportedMediaTypeError(
            "send texts as application/json, or one text as text/plain, and say which in "
            "Content-Type (curl: --json, or -H 'Content-Type: text/plain' --data-raw)"
        )
    refuse_unknown_names((name for name, _ in query), [*VectorOptions.model_fields])
    if not media_type and body.lstrip().startswith(b"{"):
        raise UnsupportedMediaTypeError(
            "for JSON, send Content-Type: application/json; for a text that looks like it, "
            "Content-Type: text/plain"
        )
    if not media_type and not body:
        raise NoTextsError(f"the request holds no text; send {_EXAMPLE}", param="texts")
    _check_charset(request.headers.get("content-type", ""))
    text = _decode(body)
    check_texts([text], limits)
    return TextInput(read_options(VectorOptions, query), [text], [None])


def _read_json(body: bytes, query: Sequence[tuple[str, str]], limits: TextLimits) -> TextInput:
    per_text = _JSON_BYTES_PER_BYTE * limits.max_text_bytes + _JSON_BYTES_PER_TEXT
    if len(body) > per_text * (limits.max_texts + 1):
        raise BodyTooLargeError(
            f"more bytes than {limits.max_texts} texts (SIGLIP_MAX_TEXTS) of "
            f"{limits.max_text_bytes} bytes (SIGLIP_MAX_TEXT_BYTES) can have"
        )
    content = parse_json(body, limits.max_texts, _EXAMPLE, holds_prose=True)
    refuse_unknown_names((*content, *(name for name, _ in query)), _JSON_KEYS)
    texts = content["texts"] = _texts_of(content)
    if texts is None or texts == []:
        raise NoTextsError(f"the request holds no text; send {_EXAMPLE}", param="texts")
    if isinstance(texts, list) and len(texts) > limits.max_texts:
        raise TooManyTextsError(
            f"more than {limits.max_texts} texts in one request (SIGLIP_MAX_TEXTS)", param="texts"
        )
    refuse_long_names(texts)
    parsed = validate(EmbedTextBody, content)
    check_texts([item.text for item in parsed.texts], limits)
    given = parsed.model_dump(exclude={"texts"}, exclude_unset=True, exclude_none=True)
    options = read_options(VectorOptions, [*query, *given.items()])
    return TextInput(
        options, [item.text for item in parsed.texts], [item.id for item in parsed.texts]
    )


def _texts_of(content: dict[str, Any]) -> object:
    """Take the texts out of a body: `texts`, or `text` for one."""
    if "text" not in content:
        return content.get("texts")
    text = content.pop("text")
    if "texts" in content:
        raise InvalidParameterError("give text or texts, not both", param="text")
    return [text]


def _check_charset(content_type: str) -> None:
    """Refuse what is said to be of another encoding: as UTF-8 it may well be another text."""
    parameters = (parameter.partition("=") for parameter in content_type.lower().split(";")[1:])
    named = [value.strip(' \t"') for name, _, value in parameters if name.strip() == "charset"]
    if any(charset not in _CHARSETS for charset in named):
        raise UnsupportedMediaTypeError("texts are read as UTF-8 only: send charset=utf-8, or none")


def _decode(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidParameterError("the text is not UTF-8") from None


def is_too_large(text: str, limits: TextLimits) -> bool:
    """Tell whether a text has more bytes than one may have."""
    # Most are told by their characters, of which none has more than 4 bytes.
    is_short = 4 * len(text) <= limits.max_text_bytes
    return not is_short and len(text.encode()) > limits.max_text_bytes


def check_texts(texts: Sequence[str], limits: TextLimits) -> None:
    """Raise `TextTooLargeError` for the first text of too many bytes."""
    for index, text in enumerate(texts):
        if is_too_large(text, limits):
            raise TextTooLargeError(
                f"text {index} has more than {limits.max_text_bytes} bytes (SIGLIP_MAX_TEXT_BYTES)",
                param=f"texts[{index}]",
            )
