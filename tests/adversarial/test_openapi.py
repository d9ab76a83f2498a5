"""The service against its own description: schemathesis sends what /openapi.json allows, and what
it does not, and holds every answer against it."""

import base64
import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate as validate_description
from schemathesis.checks import CheckFunction
from schemathesis.core import NotSet
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from app.api.adapters import ADAPTERS
from app.main import create_app
from app.settings import Settings
from tests.app.fake_embedder import SPACE, SoundImages
from tests.app.fake_text_embedder import SoundTexts
from tests.app.images import encode, plain_png, scene
from tests.app.service_server import ServiceServer, run_service

IMAGES = [plain_png((10, 20, 30)), encode(scene(0), "JPEG"), encode(scene(1), "WEBP")]


@pytest.fixture(scope="module")
def service(_no_settings_from_outside: None) -> Iterator[ServiceServer]:
    with run_service(ALL_ROUTES, SoundImages(), texts=SoundTexts()) as server:
        yield server


ALL_ROUTES = Settings(adapters=frozenset(ADAPTERS))
# A copy: schemathesis changes it, and routes share their descriptions with other applications.
description = schemathesis.openapi.from_dict(
    copy.deepcopy(create_app(ALL_ROUTES, SoundImages()).openapi())
)

UNKNOWN_HEADER = "x-schemathesis-unknown-property"

images = st.sampled_from(IMAGES)
for media_type in ("image/*", "application/octet-stream"):
    schemathesis.openapi.media_type(media_type, images)
schemathesis.openapi.format("binary", images.map(lambda data: data))
schemathesis.openapi.format("byte", images.map(lambda data: base64.b64encode(data).decode()))


@description.parametrize()
@settings(
    derandomize=True, max_examples=100, deadline=None, suppress_health_check=list(HealthCheck)
)
def test_every_answer_is_as_described(service: ServiceServer, case: schemathesis.Case[Any]) -> None:
    if UNKNOWN_HEADER in case.headers:
        return  # HTTP has it that unknown headers are passed over
    _know_the_service(case)
    excused: list[CheckFunction] = [positive_data_acceptance] if _contradicts_itself(case) else []
    if case.path == "/embed/text" and isinstance(case.body, NotSet):
        excused.append(negative_data_rejection)  # no body is the empty text
    case.call_and_validate(base_url=service.url, excluded_checks=excused)


def test_the_description_is_valid() -> None:
    validate_description(create_app(Settings(), SoundImages()).openapi())


def test_examples_can_be_sent_as_they_are(service: ServiceServer) -> None:
    """Every example of a JSON body."""
    paths = service.client.get("/openapi.json").json()["paths"]
    for path, methods in paths.items():
        content = methods.get("post", {}).get("requestBody", {}).get("content", {})
        if "application/json" in content:
            answer = service.client.post(path, json=content["application/json"]["example"])
            assert answer.status_code == 200, answer.text


def _contradicts_itself(case: schemathesis.Case[Any]) -> bool:
    """Tell whether options are refused for one another, which no schema of theirs can say."""
    body = case.body if isinstance(case.body, dict) else {}
    options = {**case.query, **body}
    two_values = any(
        case.query.get(name, value) != value for name, value in body.items() if value is not None
    )
    ids, images = body.get("id"), body.get("images")
    encodings = [options.get("encoding_format"), options.get("embedding_type")]
    uneven = isinstance(ids, list) and isinstance(images, list) and len(ids) not in (0, len(images))
    return (
        two_values
        or (options.get("dtype") == "float16" and options.get("encoding") != "base64")
        or uneven
        or (case.path == "/classify" and _has_odd_labels(options))
        # A model, a number of dimensions, a text's length are right or wrong for this service only.
        or case.path.endswith("/embeddings")
        or options.get("modality") == "image"  # then strings are, of which none says so
        or (None not in encodings and encodings[0] != encodings[1])
    )


def _has_odd_labels(options: dict[str, Any]) -> bool:
    """Tell whether there is no label, an empty one or one twice, or a template with two places."""
    labels, templates = (
        value if isinstance(value, list) else [value]
        for value in (options.get("labels", []), options.get("template", []))
    )
    names = [label["label"] if isinstance(label, dict) else label for label in labels]
    return (
        not all(str(name).strip() for name in names)
        or len(set(map(str, names))) < max(1, len(names))
        or any(str(template).count("{}") != 1 for template in templates)
    )


def _know_the_service(case: schemathesis.Case[Any]) -> None:
    """Make what no description can tell fit: the space, and a patience that is long enough."""
    for options in (case.query, case.body):
        if isinstance(options, dict) and isinstance(options.get("expect_space"), str):
            options["expect_space"] = SPACE
    if case.path == "/v1/embeddings" and isinstance(case.body, dict):
        if type(case.body.get("dimensions")) is int:
            case.body["dimensions"] = SoundImages().info.dim
        truncate = case.body.get("truncate")
        if truncate is False or truncate == "NONE":  # refuses a text of too many tokens
            case.body["truncate"] = True
    if re.fullmatch(r"[1-9]\d{0,8}", str(case.headers.get("X-Request-Timeout-Ms"))):
        case.headers["X-Request-Timeout-Ms"] = "60000"
