"""What /openapi.json says of requests with texts."""

from collections.abc import Mapping
from typing import Any

from app.api.description import ID_SCHEMA, describe_body, describe_options, either, or_null
from app.api.schemas import EXAMPLE_TEXTS, EmbedTextBody, VectorOptions


def describe_text_request() -> dict[str, Any]:
    """Describe the options, and the two forms of a body with texts."""
    options = describe_options(VectorOptions)
    return describe_body(
        options,
        {
            "application/json": {
                "schema": _json_text_body(options),
                "example": {"texts": list(EXAMPLE_TEXTS)},
            },
            "text/plain": {"schema": {"type": "string"}, "example": EXAMPLE_TEXTS[0]},
        },
    )


def _json_text_body(options: Mapping[str, Any]) -> dict[str, Any]:
    schema = EmbedTextBody.model_json_schema()
    del schema["$defs"]
    schema["properties"] |= {**options, "expect_space": or_null(options["expect_space"])}
    text = {"type": "string"}
    item = {
        "type": "object",
        "properties": {"id": or_null(ID_SCHEMA), "text": text},
        "required": ["text"],
        "additionalProperties": False,
    }
    schema["properties"]["texts"]["items"] = {"oneOf": [text, item]}
    alone = "One text alone, instead of `texts`."
    schema["properties"]["text"] = {"oneOf": [text, item], "description": alone}
    return either(schema, "text", "texts")
