"""What /openapi.json says of requests that FastAPI cannot derive from a signature."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import orjson
from pydantic import BaseModel

from app.api.schemas import (
    EXAMPLE_IMAGES,
    MAX_ID_LENGTH,
    EmbedBody,
    EmbedOptions,
)

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BASE64 = {"type": "string", "format": "byte", "description": "base64, or a data URI"}
_URL = {"type": "string", "format": "uri", "description": "http or https, if URL input is on"}
ID_SCHEMA = {"type": "string", "maxLength": MAX_ID_LENGTH, "description": "Echoed in the answer."}

# Else /docs would make one up, with a value for each option.
JSON_EXAMPLE = {"images": list(EXAMPLE_IMAGES)}
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
HEADER_PARAMETERS = [_TIMEOUT, _REQUEST_ID]
"""Headers that any route with vectors takes."""
_TEXT_HEADER = {"required": True, "schema": {"type": "string"}}
_ARRAY_HEADER = {"description": "Binary answers only.", "schema": {"type": "string"}}
ANSWER_HEADERS: Mapping[str, Any] = MappingProxyType(
    {
        "X-Request-ID": _TEXT_HEADER,
        "X-Embedding-Space": _TEXT_HEADER,
        "Server-Timing": _TEXT_HEADER,
    }
)
"""Headers of a good answer."""
ANSWER_BESIDE_JSON: Mapping[str, Any] = MappingProxyType(
    {
        "headers": {
            **ANSWER_HEADERS,
            "X-Embedding-Shape": _ARRAY_HEADER,
            "X-Embedding-Dtype": _ARRAY_HEADER,
        },
        "content": {"application/x-npy": _BINARY, "application/octet-stream": _BINARY},
    }
)
"""What a good answer carries beside its JSON."""


def describe_request() -> dict[str, Any]:
    """Describe the options, and the three forms of a body with images."""
    options = describe_options(EmbedOptions)
    space = options["expect_space"]
    form, json = {"expect_space": space | {"examples": [""]}}, {"expect_space": or_null(space)}
    return describe_images(EmbedBody, options, form, json, JSON_EXAMPLE)


def describe_images(
    body: type[BaseModel],
    options: Mapping[str, Any],
    of_form: Mapping[str, Any],
    of_json: Mapping[str, Any],
    example: Mapping[str, Any],
) -> dict[str, Any]:
    """Describe the forms of a body; what `of_form` and `of_json` hold is of these alone."""
    return describe_body(
        options,
        {
            # First, and so what /docs shows: it can be sent as it is.
            "application/json": {
                "schema": _json_body(body, {**options, **of_json}),
                "example": example,
            },
            "multipart/form-data": {"schema": _form({**options, **of_form})},
            "image/*": _BINARY,
            "application/octet-stream": _BINARY,
        },
    )


def describe_body(options: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a request by its options and by each media type that its body may have."""
    parameters = [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in options.items()
    ]
    return {
        "parameters": [*parameters, *HEADER_PARAMETERS],
        "requestBody": {"required": True, "content": content},
    }


def describe_options(model: type[BaseModel]) -> dict[str, Any]:
    """Describe the options as in a query or a form, which know no null.

    Defaults are told in words only: what is a `default` is sent by clients and by /docs unasked, in
    the query as in the body, and would there contradict what was chosen in the other.
    """
    options: dict[str, Any] = model.model_json_schema()["properties"]
    return {name: _in_words(_never_null(schema)) for name, schema in options.items()}


def _never_null(schema: dict[str, Any]) -> dict[str, Any]:
    kinds = [kind for kind in schema.pop("anyOf", []) if kind != {"type": "null"}]
    return schema | (kinds[0] if kinds else {})


def _in_words(schema: dict[str, Any]) -> dict[str, Any]:
    default = schema.pop("default", None)
    if default is None:
        return schema
    value = default if isinstance(default, str) else orjson.dumps(default).decode()
    return schema | {"description": f"{schema['description']} If not given: {value}."}


def _form(options: Mapping[str, Any]) -> dict[str, Any]:
    files = {"type": "array", "minItems": 1, "items": _BINARY["schema"]}
    ids: dict[str, Any] = {
        "type": "array",
        "items": ID_SCHEMA,
        "description": "One for every image, or none.",
    }
    # /docs fills in and sends all fields: these two with nothing, rather than with a made-up text.
    ids |= {"examples": [[]]}
    return {
        "type": "object",
        "properties": {"images": files, "id": ids, **options},
        "required": ["images"],
        "additionalProperties": False,
    }


def _json_body(body: type[BaseModel], options: Mapping[str, Any]) -> dict[str, Any]:
    schema = body.model_json_schema()
    del schema["$defs"]
    schema["properties"] |= options
    items = [_BASE64, _item("data", _BASE64, without="url"), _item("url", _URL, without="data")]
    schema["properties"]["images"] |= {"minItems": 1, "items": {"oneOf": items}}
    alone = "One image alone, instead of `images`, in any form that one of these may have."
    schema["properties"]["image"] = {"oneOf": items, "description": alone}
    return either(schema, "image", "images")


def either(schema: Mapping[str, Any], one: str, many: str) -> dict[str, Any]:
    """Require one of two properties."""
    # As oneOf it would be two types to generators of clients, of which some then make none.
    has_one, has_many = {"required": [one]}, {"required": [many]}
    return {**schema, "required": [], "if": has_one, "then": {"not": has_many}, "else": has_many}


def or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Allow null, which JSON knows and counts as not given."""
    return {**schema, "type": [schema["type"], "null"]}


def _item(name: str, schema: Mapping[str, Any], *, without: str) -> dict[str, Any]:
    """Describe an image with its one source."""
    return {
        "type": "object",
        "properties": {"id": or_null(ID_SCHEMA), name: schema, without: {"type": "null"}},
        "required": [name],
        "additionalProperties": False,
    }
