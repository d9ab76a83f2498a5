"""What /openapi.json says of requests to POST /v1/embeddings."""

from typing import Any

from app.api.description import HEADER_PARAMETERS
from app.api.embeddings_schemas import EmbeddingsOptions
from app.api.schemas import EXAMPLE_IMAGES, EXAMPLE_TEXTS

_EXAMPLE = {"input": [EXAMPLE_TEXTS[0], EXAMPLE_IMAGES[0]]}

_TEXT = {"type": "string"}
_STRING = {"type": "string", "description": "A text, or an image as data URI or URL."}
_BASE64 = {"type": "string", "format": "byte", "description": "base64, a data URI, or a URL"}
_URL = {"type": "string", "format": "uri", "description": "http or https, if URL input is on"}
_URL_INSIDE = {
    "type": "object",
    "properties": {"url": _URL},
    "required": ["url"],
    "additionalProperties": False,
}
_ONE_ONLY = {"minItems": 1, "maxItems": 1}
_SOURCES: dict[str, dict[str, Any]] = {
    "text": _TEXT,
    "image": _BASE64,
    "url": _URL,
    "bytes": _BASE64,
    "image_url": {"oneOf": [_URL, _URL_INSIDE]},
    "image_base64": _BASE64,
}
_TYPES = ("text", "image_url", "image_base64")


def describe_embeddings_request() -> dict[str, Any]:
    """Describe the body of POST /v1/embeddings."""
    options: dict[str, Any] = EmbeddingsOptions.model_json_schema()["properties"]
    objects = [_object(name, schema) for name, schema in _SOURCES.items()]
    one = {"oneOf": [_STRING, *objects]}
    content = {"oneOf": [_TEXT, {"type": "array", "items": {"oneOf": objects}, **_ONE_ONLY}]}
    message = {
        "type": "object",
        "properties": {"role": {"type": "string"}, "content": content},
        "required": ["content"],
        "additionalProperties": False,
    }
    schema = {
        "type": "object",
        "properties": {
            "input": {
                "oneOf": [*one["oneOf"], {"type": "array", "items": one, "minItems": 1}],
                "description": "One or many; texts and images may be mixed.",
            },
            "messages": {
                "type": "array",
                "items": message,
                **_ONE_ONLY,
                "description": "One input as a message of a chat, instead of `input`.",
            },
            **options,
        },
        "additionalProperties": False,
        "if": {"required": ["messages"]},
        "then": {"not": {"required": ["input"]}},
        "else": {"required": ["input"]},
    }
    return {
        "parameters": HEADER_PARAMETERS,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": _EXAMPLE}},
        },
    }


def _object(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Describe an input with its one source, and with a type where that has one."""
    types = {"type": {"type": "string", "enum": [name]}} if name in _TYPES else {}
    return {
        "type": "object",
        "properties": {**types, name: schema},
        "required": [name],
        "additionalProperties": False,
    }
