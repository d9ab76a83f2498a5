"""Weaviate's contract: what its multi2vec-clip module sends, byte by byte, and reads."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from app.engine.protocol import NO_TEXTS
from app.keys import ApiKeys
from app.main import create_app
from app.settings import Settings
from tests.app.answers import check_error
from tests.app.fake_embedder import SPACE, FakeEmbedder, expected_pooled
from tests.app.fake_text_embedder import (
    RAISES,
    TEXT_SPACE,
    FakeTextEmbedder,
    expected_text_vector,
)
from tests.app.images import plain_png
from tests.app.service_server import ServiceServer, run_service

COLOURS = [(100, 2, 3), (1, 90, 3)]
IMAGES = [base64.b64encode(plain_png(colour)).decode() for colour in COLOURS]
ADAPTERS = frozenset({"weaviate"})
# What Go's net/http sends for http.NewRequest(..., bytes.NewReader(body)) and Client.Do.
GO_POST = (
    b"POST /vectorize HTTP/1.1\r\n"
    b"Host: multi2vec-clip:8080\r\n"
    b"User-Agent: Go-http-client/1.1\r\n"
    b"Content-Length: %d\r\n"
    b"Accept-Encoding: gzip\r\n"
    b"\r\n"
)
GO_GET = (
    b"GET %s HTTP/1.1\r\n"
    b"Host: multi2vec-clip:8080\r\n"
    b"User-Agent: Go-http-client/1.1\r\n"
    b"Accept-Encoding: gzip\r\n"
    b"\r\n"
)


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceServer]:
    settings = Settings(
        adapters=ADAPTERS,
        max_images=2,
        max_texts=3,
        max_text_bytes=32,
        max_image_bytes=10_000,
        max_body_bytes=20_000,
    )
    with run_service(settings, FakeEmbedder(), texts=FakeTextEmbedder()) as running:
        yield running


def post_as_go(service: ServiceServer, body: bytes) -> httpx.Response:
    return service.ask_raw(GO_POST % len(body) + body)


def get_as_go(service: ServiceServer, path: str) -> httpx.Response:
    return service.ask_raw(GO_GET % path.encode())


def read_as_go(answer: httpx.Response) -> dict[str, Any]:
    """Read an answer into the client's struct: two lists of lists of numbers, and a string."""
    content: dict[str, Any] = answer.json()
    assert isinstance(content.get("error", ""), str)
    for name in ("textVectors", "imageVectors"):
        for vector in content.get(name) or []:
            assert all(isinstance(number, int | float) for number in vector)
    return content


def unit(vector: list[float]) -> np.ndarray:
    return np.array(vector) / np.linalg.norm(vector)


def refused(answer: httpx.Response, status: int) -> str:
    """Check a refusal as the client reads it; return its message."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    content = read_as_go(answer)
    assert content.keys() == {"error"}
    assert content["error"]
    return str(content["error"])


@pytest.mark.parametrize(
    ("body", "texts", "images"),
    [
        # An object with a text and an image, one with texts, one with images, a query by text, and
        # a query by image: Go writes null for a slice that is nil.
        (b'{"texts":["ant"],"images":["%s"]}' % IMAGES[0].encode(), ["ant"], COLOURS[:1]),
        (b'{"texts":["ant","bee \\u003c\\u0026\\u003e"],"images":[]}', ["ant", "bee <&>"], []),
        (
            b'{"texts":[],"images":["%s","%s"]}' % (IMAGES[0].encode(), IMAGES[1].encode()),
            [],
            COLOURS,
        ),
        (b'{"texts":["ant"],"images":null}', ["ant"], []),
        (b'{"texts":null,"images":["%s"]}' % IMAGES[1].encode(), [], COLOURS[1:]),
        (b'{"texts":["ant"]}', ["ant"], []),
        (b'{"images":["%s"]}' % IMAGES[1].encode(), [], COLOURS[1:]),
        (b'{"texts":null,"images":null}', [], []),
        (b"{}", [], []),
    ],
)
def test_texts_and_images_become_unit_vectors(
    service: ServiceServer, body: bytes, texts: list[str], images: list[tuple[int, int, int]]
) -> None:
    answer = post_as_go(service, body)

    assert answer.status_code == 200, answer.text
    content = read_as_go(answer)
    assert content.keys() == {"textVectors", "imageVectors"}
    expected = [unit(expected_text_vector(text)) for text in texts]
    assert len(content["textVectors"]) == len(expected)
    for vector, one in zip(content["textVectors"], expected, strict=True):
        np.testing.assert_allclose(vector, one, rtol=1e-6)
    for vector, colour in zip(content["imageVectors"], images, strict=True):
        np.testing.assert_allclose(vector, unit(expected_pooled(colour)), rtol=1e-6)
    assert answer.headers["x-embedding-space"] == SPACE


def test_vectors_are_those_of_the_service(service: ServiceServer) -> None:
    content = post_as_go(
        service, json.dumps({"texts": ["ant"], "images": IMAGES[:1]}).encode()
    ).json()
    image = service.client.post("/embed", json={"images": IMAGES[:1]}).json()["data"][0]
    text = service.client.post("/embed/text", json={"texts": ["ant"]}).json()["data"][0]

    assert content["imageVectors"] == [image["embedding"]]
    assert content["textVectors"] == [text["embedding"]]


@pytest.mark.parametrize("path", ["/.well-known/ready", "/.well-known/live"])
def test_probes_answer_when_all_is_well(service: ServiceServer, path: str) -> None:
    assert get_as_go(service, path).status_code == 200


def test_meta_is_an_object_that_tells_the_model(service: ServiceServer) -> None:
    answer = get_as_go(service, "/meta")

    assert answer.status_code == 200
    content = answer.json()
    assert (content["model"], content["dim"]) == ("fake/colours", 4)
    assert (content["space"], content["text_space"]) == (SPACE, TEXT_SPACE)


def test_a_service_that_cannot_load_is_live_but_not_ready() -> None:
    with run_service(Settings(adapters=ADAPTERS, model="/none")) as service:
        for path in ("/.well-known/ready", "/meta"):
            assert get_as_go(service, path).status_code == 503
        assert refused(post_as_go(service, b'{"texts":["ant"],"images":null}'), 503)
        assert get_as_go(service, "/.well-known/live").status_code == 200
        assert isinstance(get_as_go(service, "/.well-known/ready").json(), dict)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b'{"texts":["a","b","c","d"],"images":null}', 413, "SIGLIP_MAX_TEXTS"),
        (b'{"texts":null,"images":["a","b","c"]}', 413, "SIGLIP_MAX_IMAGES"),
        (b'{"texts":["%s"],"images":null}' % (b"a" * 33), 413, "SIGLIP_MAX_TEXT_BYTES"),
        (b'{"texts":null,"images":["%s"]}' % (b"A" * 15_000), 413, "SIGLIP_MAX_IMAGE_BYTES"),
        (b'{"texts":null,"images":["AAAA"]}', 415, "image 0"),
        (b'{"texts":null,"images":["%s","?"]}' % IMAGES[0].encode(), 400, "image 1"),
        (b'{"texts":"ant","images":null}', 400, "texts"),
        (b'{"texts":["ant"],"images":[1]}', 400, "images[0]"),
        (b'{"texts":["ant"],"image":[]}', 400, "there are texts, images"),
        (b'["ant"]', 400, '{"texts"'),
        (b'{"texts":["ant"', 400, "JSON"),
        (b"", 400, "JSON"),
        (b'{"texts":[%s"ant"]}' % (b"{}," * 6_000), 400, "values"),
        (b'{"texts":["%sant"],"images":null}' % RAISES.encode(), 500, "text 0"),
        (b" " * 20_001, 413, "SIGLIP_MAX_BODY_BYTES"),
    ],
)
def test_errors_are_one_string(
    service: ServiceServer, body: bytes, status: int, words: str
) -> None:
    assert words in refused(post_as_go(service, body), status)


def test_errors_of_the_guard_and_of_the_router_are_one_string_too(
    service: ServiceServer,
) -> None:
    client = service.client
    refused(client.get("/vectorize"), 405)
    refused(client.post("/meta"), 405)
    refused(client.post("/vectorize", headers={"Content-Encoding": "gzip"}), 415)
    refused(client.post("/vectorize", content=b"a", headers={"Content-Type": "text/plain"}), 415)
    refused(client.post("/vectorize?model=x", json={}), 400)
    refused(client.post("/vectorize", json={}, headers={"Accept": "application/x-npy"}), 406)
    refused(client.post("/vectorize", json={}, headers={"X-Request-Timeout-Ms": "x"}), 400)


def test_other_routes_keep_the_one_error_shape(service: ServiceServer) -> None:
    check_error(service.client.get("/vectorize/x"), 404, "not_found")
    check_error(service.client.post("/embed"), 400, "no_images")


def test_texts_without_a_text_tower_are_told_why_and_images_are_taken() -> None:
    settings = Settings(adapters=ADAPTERS)
    with run_service(settings, FakeEmbedder(), texts=NO_TEXTS) as service:
        answer = post_as_go(service, b'{"texts":["ant"],"images":null}')
        assert "image tower" in refused(answer, 400)
        body = json.dumps({"texts": None, "images": IMAGES}).encode()
        assert len(post_as_go(service, body).json()["imageVectors"]) == 2
        assert get_as_go(service, "/meta").json()["text_space"] is None


def test_without_the_setting_there_are_no_such_routes(server: ServiceServer) -> None:
    for path in ("/vectorize", "/meta", "/.well-known/live", "/.well-known/ready"):
        for answer in (get_as_go(server, path), server.client.post(path, json={})):
            check_error(answer, 404, "not_found")


def test_with_keys_only_the_adapters_routes_are_open() -> None:
    settings = Settings(adapters=ADAPTERS, adapters_open=True, api_keys=ApiKeys.of(b"hush"))
    with run_service(settings, FakeEmbedder(), texts=FakeTextEmbedder()) as service:
        assert post_as_go(service, b'{"texts":["ant"],"images":null}').status_code == 200
        for path in ("/meta", "/.well-known/live", "/.well-known/ready"):
            assert get_as_go(service, path).status_code == 200
        for path in ("/vectorize/", "/meta/x", "/.well-known", "/v1/models", "//meta"):
            assert get_as_go(service, path).status_code == 401, path
        check_error(service.client.post("/embed", json={}), 401, "invalid_api_key")


def test_an_unknown_adapter_does_not_start() -> None:
    with pytest.raises(KeyError):
        create_app(Settings(adapters=frozenset({"milvus"})), FakeEmbedder())


def test_the_example_of_the_description_works_as_it_is(service: ServiceServer) -> None:
    description = service.client.get("/openapi.json").json()
    operation = description["paths"]["/vectorize"]["post"]
    example = operation["requestBody"]["content"]["application/json"]["example"]

    answer = service.client.post("/vectorize", json=example)

    assert answer.status_code == 200, answer.text
    assert [len(vectors) for vectors in answer.json().values()] == [1, 1]
    error = operation["responses"]["413"]["content"]["application/json"]["schema"]
    assert error == {"$ref": "#/components/schemas/WeaviateError"}
