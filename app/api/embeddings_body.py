"""The inputs of a body of POST /v1/embeddings, whichever client wrote it."""

import re
from typing import Any, Literal

from app.api.schemas import is_url
from app.errors import InvalidParameterError, TokensUnsupportedError

EXAMPLE = '{"input": ["a red bicycle", "data:image/jpeg;base64,..."]}'
"""How texts and images are sent."""
# Told before they are counted: an honest client sends more of them than JSON may hold.
_INPUT_KEY = b'"input"'
_TOKENS = re.compile(rb'"input"\s*+:\s*+\[\s*+(?:\[\s*+)?-?\d')

Field = Literal["input", "messages"]
"""What holds the inputs."""


def refuse_tokens(body: bytes) -> None:
    """Raise `TokensUnsupportedError` where a body that is not yet read has token ids for texts."""
    if _TOKENS.match(body, max(0, body.find(_INPUT_KEY))):
        raise _no_tokens()


def take_inputs(content: dict[str, Any]) -> tuple[Field, list[object]]:
    """Take the inputs out of a body, at least one; strings and objects as they are.

    Raises `InvalidParameterError` or `TokensUnsupportedError`.
    """
    if "messages" in content:
        if "input" in content:
            raise InvalidParameterError("give input or messages, not both", param="messages")
        return "messages", [_content_of(content.pop("messages"))]
    given = content.pop("input", None)
    items = given if isinstance(given, list) else [given]
    if any(isinstance(item, int | list) and not isinstance(item, bool) for item in items):
        raise _no_tokens()
    if not items or given is None:
        raise InvalidParameterError(f"the request holds no input; send {EXAMPLE}", param="input")
    for index, item in enumerate(items):
        if not isinstance(item, str | dict):
            raise InvalidParameterError(
                f"input {index} is no string and no object", param=f"input[{index}]"
            )
    return "input", items


def as_object(item: Any, modality: Literal["text", "image"] | None) -> dict[str, Any]:
    """Tell what a string is by its first characters, unless it is said."""
    if isinstance(item, dict):
        return item
    start = item[:64].lstrip()
    is_image = start[:5].lower() == "data:" or modality == "image"
    is_image = is_image or (modality is None and is_url(item))
    return {"image" if is_image else "text": item}


def _content_of(messages: object) -> dict[str, Any]:
    """Return the one content of the one message of a chat."""
    match messages:
        case [{"content": str(text), **rest}] if rest.keys() <= {"role"}:
            return {"text": text}
        case [{"content": [dict(part)], **rest}] if rest.keys() <= {"role"}:
            return part
    raise InvalidParameterError(
        "an input is one text or one image: send one message, of role and content, with one "
        "content; several go into input, for a vector each",
        param="messages",
    )


def _no_tokens() -> TokensUnsupportedError:
    return TokensUnsupportedError(
        "token ids are of another model's tokenizer: send texts as strings "
        "(LangChain: OpenAIEmbeddings(..., check_embedding_ctx_length=False))",
        param="input",
    )
