"""What /openapi.json says of POST /embed; FastAPI cannot derive it from a signature."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from app.api.schemas import MAX_ID_LENGTH, EmbedBody, EmbedOptions

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BASE64 = {"type": "string", "format": "byte", "description": "base64, or a data URI"}
_URL = {"type": "string", "format": "uri", "description": "http or https, if URL input is on"}
_ID = {"type": "string", "maxLength": MAX_ID_LENGTH, "description": "Echoed in the answer."}

_REQUEST_ID = {
    "name": "X-Request-ID",
    "in": "header",
    "required": False,
    "description": "Echoed when it is 1 to 64 letters, digits, dots, dashes or underscores.",
    "schema": {"type": "string"},
}
_TIMEOUT = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "required": False,
    "description": "How long the caller will wait; the service's own limit holds as well.",
    "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
}
_TEXT_HEADER = {"required": True, "schema": {"type": "string"}}
_ARRAY_HEADER = {"description": "Binary answers only.", "schema": {"type": "string"}}
ANSWER_BESIDE_JSON: Mapping[str, Any] = MappingProxyType(
    {
        "headers": {
            "X-Request-ID": _TEXT_HEADER,
            "X-Embedding-Space": _TEXT_HEADER,
            "Server-Timing": _TEXT_HEADER,
            "X-Embedding-Shape": _ARRAY_HEADER,
            "X-Embedding-Dtype": _ARRAY_HEADER,
        },
        "content": {"application/x-npy": _BINARY, "application/octet-stream": _BINARY},
    }
)
"""What a good answer carries beside its JSON."""


def describe_request() -> dict[str, Any]:
    """Describe the options, and the three forms of a body."""
    options = {
        name: _never_null(schema)
        for name, schema in EmbedOptions.model_json_schema()["properties"].items()
    }
    parameters = [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in options.items()
    ]
    ids = {"type": "array", "items": _ID, "description": "One for every image, or none."}
    content = {
        "image/*": _BINARY,
        "application/octet-stream": _BINARY,
        "multipart/form-data": {"schema": _form(options, ids)},
        "application/json": {"schema": _json_body()},
    }
    return {
        "parameters": [*parameters, _TIMEOUT, _REQUEST_ID],
        "requestBody": {"required": True, "content": content},
    }


def _never_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Leave out the null of an option: a query or a form has no such value."""
    kinds = [kind for kind in schema.pop("anyOf", []) if kind != {"type": "null"}]
    return schema | (kinds[0] if kinds else {})


def _form(options: Mapping[str, Any], ids: Mapping[str, Any]) -> dict[str, Any]:
    files = {"type": "array", "minItems": 1, "items": _BINARY["schema"]}
    return {
        "type": "object",
        "properties": {"images": files, "id": ids, **options},
        "required": ["images"],
        "additionalProperties": False,
    }


def _json_body() -> dict[str, Any]:
    schema = EmbedBody.model_json_schema()
    del schema["$defs"]
    items = [_BASE64, _item("data", _BASE64, without="url"), _item("url", _URL, without="data")]
    schema["properties"]["images"] |= {"minItems": 1, "items": {"oneOf": items}}
    return schema


def _item(name: str, schema: Mapping[str, Any], *, without: str) -> dict[str, Any]:
    """Describe an image with its one source."""
    optional_id = _ID | {"type": ["string", "null"]}
    return {
        "type": "object",
        "properties": {"id": optional_id, name: schema, without: {"type": "null"}},
        "required": [name],
        "additionalProperties": False,
    }
