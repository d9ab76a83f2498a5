"""Thousands of JSON bodies that nobody meant, to the routes with texts: answered in one shape."""

import base64
import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.settings import Settings
from tests.app.answers import check_error
from tests.app.fake_embedder import FakeEmbedder
from tests.app.fake_text_embedder import SoundTexts
from tests.app.images import plain_png
from tests.app.service_server import ServiceServer, run_service

BARE = base64.b64encode(plain_png((90, 0, 0))).decode()
DATA_URI = f"data:image/png;base64,{BARE}"
BODIES: dict[str, list[dict[str, Any]]] = {
    "/v1/embeddings": [
        {"input": "ant", "model": "colours", "encoding_format": "base64", "user": "u"},
        {"input": ["ant", DATA_URI, {"image": BARE}, {"text": "bee"}], "normalized": False},
        {"input": [{"type": "image_url", "image_url": {"url": DATA_URI}}], "modality": "image"},
        {"input": [{"url": "https://a.example/b.png"}, {"bytes": BARE}], "dimensions": 4},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "ant"}]}]},
        {"input": [[1, 2], [3]], "task": "retrieval.query", "truncate": "NONE", "padding": True},
    ],
    "/classify": [
        {"image": BARE, "labels": ["ant", "bee"], "top_k": 1},
        {"images": [DATA_URI, {"id": "a", "data": BARE}], "labels": ["ant"], "on_error": "partial"},
        {"image": DATA_URI, "labels": [{"label": "ant", "prompts": ["an ant", "{}"]}, "bee"]},
        {"image": BARE, "labels": ["ant"], "template": ["{}", "a {}"], "scoring": "cosine"},
        {"image": BARE, "labels": ["ant"], "template": "{}!", "threshold": 0.5},
        {"images": [{"url": "https://a.example/b.png"}], "labels": ["ant"]},
    ],
    "/embed/text": [
        {"text": "ant", "encoding": "base64", "dtype": "float16"},
        {"texts": ["ant", {"id": "a", "text": "bee"}], "normalize": False},
        {"text": {"text": "ant", "id": None}, "expect_space": "fake-colours:0123456789ab"},
    ],
}
NAMES = ["input", "messages", "content", "type", "text", "image", "image_url", "url", "truncate"]
NAMES += ["images", "labels", "label", "prompts", "template", "scoring", "texts", "id", "data"]
STRINGS = [
    "",
    "ant",
    BARE,
    DATA_URI,
    DATA_URI[:40],
    "data:",
    "https://a.example/b.png",
    "END",
    "{}",
]

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(STRINGS)
)
names = st.sampled_from(NAMES) | st.text(max_size=5)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=8,
)
bounded = settings(
    derandomize=True,
    database=None,
    max_examples=250,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceServer]:
    limits = Settings(
        max_images=3,
        max_texts=4,
        max_text_bytes=64,
        max_image_bytes=2_000,
        max_body_bytes=5_000,
    )
    with run_service(limits, FakeEmbedder(), texts=SoundTexts()) as running:
        yield running
        engine = running.engine.require_service()
        assert engine.admission.admitted == 0
        assert engine.require_texts().admission.admitted == 0


def check(service: ServiceServer, route: str, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = service.client.post(route, content=body, headers=headers)
    assert answer.status_code < 500, answer.text
    if answer.status_code != 200:
        error = answer.json()["error"]
        check_error(answer, answer.status_code, error["code"], error["param"])


def places_in(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every list and object inside, with each of its indices and names."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(inside):
        yield value, key
        if isinstance(inner, dict | list):
            yield from places_in(inner)


@pytest.mark.parametrize("route", BODIES)
@bounded
@given(data=st.data())
def test_json_at_random(service: ServiceServer, route: str, data: st.DataObject) -> None:
    keys = st.sampled_from(sorted({key for body in BODIES[route] for key in body}))
    body = data.draw(values | st.dictionaries(keys, values, min_size=1))
    check(service, route, json.dumps(body).encode())


@pytest.mark.parametrize("route", BODIES)
@bounded
@given(data=st.data())
def test_requests_with_something_else_in_them(
    service: ServiceServer, route: str, data: st.DataObject
) -> None:
    body = copy.deepcopy(data.draw(st.sampled_from(BODIES[route])))
    for _ in range(data.draw(st.integers(1, 2))):
        container, key = data.draw(st.sampled_from(list(places_in(body))))
        if isinstance(container, dict) and data.draw(st.booleans()):
            container[data.draw(names)] = container.pop(key)
        else:
            container[key] = data.draw(values)
        if not body:
            break
    check(service, route, json.dumps(body).encode())


@pytest.mark.parametrize("route", BODIES)
@bounded
@given(
    data=st.data(),
    edits=st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=3)), min_size=1, max_size=3),
)
def test_requests_with_other_bytes_in_them(
    service: ServiceServer, route: str, data: st.DataObject, edits: list[tuple[int, bytes]]
) -> None:
    body = json.dumps(data.draw(st.sampled_from(BODIES[route]))).encode()
    for at, given_bytes in edits:
        body = body[:at] + given_bytes + body[at + len(given_bytes) :]
    check(service, route, body)
