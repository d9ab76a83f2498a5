"""What /openapi.json says of requests with images and labels."""

from typing import Any

from app.api.classify_schemas import (
    DEFAULT_TEMPLATE,
    EXAMPLE_LABELS,
    ClassifyBody,
    ClassifyOptions,
)
from app.api.description import JSON_EXAMPLE, describe_images, describe_options, or_null


def describe_classify_request() -> dict[str, Any]:
    """Describe the options, and the three forms of a body with images to classify."""
    options = describe_options(ClassifyOptions)
    words = {name: options.pop(name)["description"] for name in ("labels", "template")}
    words["labels"] = ClassifyOptions.model_fields["labels"].description
    label = {"type": "string", "minLength": 1}
    labels = {"type": "array", "minItems": 1}
    template = {"type": "string", "pattern": r"\{\}"}
    templates = {"type": "array", "minItems": 1, "items": template}
    prompts = {"type": "array", "minItems": 1, "items": {"type": "string"}}
    own = {
        "type": "object",
        "properties": {"label": label, "prompts": {**prompts, "type": ["array", "null"]}},
        "required": ["label"],
        "additionalProperties": False,
    }
    in_words = {name: {"description": text} for name, text in words.items()}
    plain = {
        "labels": {**labels, "items": label, **in_words["labels"]},
        "template": {**templates, **in_words["template"]},
    }
    # As with ids: the page sends what it is told as an example, and must not send a made-up one.
    form = {
        "labels": plain["labels"] | {"examples": [["a cat", "a dog"]]},
        "template": plain["template"] | {"examples": [[DEFAULT_TEMPLATE]]},
    }
    json = {
        "labels": {**labels, "items": {"oneOf": [label, own]}, **in_words["labels"]},
        "template": {"oneOf": [template, templates], **in_words["template"]},
        **{name: or_null(options[name]) for name in ("top_k", "threshold")},
    }
    example = JSON_EXAMPLE | {"labels": list(EXAMPLE_LABELS)}
    return describe_images(ClassifyBody, {**plain, **options}, form, json, example)
