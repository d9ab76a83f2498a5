"""POST /embed/text through a real socket: forms, options, answers, refusals."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from app.settings import Settings
from tests.app.fake_embedder import SPACE, FakeEmbedder
from tests.app.fake_text_embedder import (
    RAISES,
    TEXT_SPACE,
    FakeTextEmbedder,
    expected_text_vector,
)
from tests.app.service_server import ServiceServer, run_service


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceServer]:
    settings = Settings(max_texts=4, max_text_bytes=32)
    with run_service(settings, FakeEmbedder(), texts=FakeTextEmbedder()) as running:
        yield running


def post(service: ServiceServer, body: object, **options: Any) -> httpx.Response:
    return service.client.post("/embed/text", json=body, **options)


def refused(answer: httpx.Response, status: int, code: str) -> str:
    """Check a refusal's status, shape and code; return its message."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == code
    return str(error["message"])


def unit(text: str) -> np.ndarray:
    vector = np.array(expected_text_vector(text))
    return vector / np.linalg.norm(vector)


def test_an_answer_has_the_shape_of_images_answers(service: ServiceServer) -> None:
    answer = post(service, {"texts": ["ant", {"id": "q1", "text": "a longer text"}]})

    assert answer.status_code == 200
    content = answer.json()
    assert content["space"] == answer.headers["x-embedding-space"] == SPACE
    assert content["text_space"] == TEXT_SPACE
    assert content["dim"] == 4
    assert content["normalized"] is True
    assert content["usage"] == {"texts": 2, "tokens": 3 + 13}
    first, second = content["data"]
    assert (first["index"], first["id"], first["tokens"], first["warnings"]) == (0, None, 3, [])
    assert (second["index"], second["id"], second["tokens"]) == (1, "q1", 13)
    assert second["warnings"] == ["text_truncated"]
    np.testing.assert_allclose(first["embedding"], unit("ant"), rtol=1e-6)
    assert {"tokenize", "serialize"} <= {
        part.split(";")[0].strip() for part in answer.headers["server-timing"].split(",")
    }


@pytest.mark.parametrize("headers", [{"Content-Type": "text/plain"}, {}])
def test_one_text_may_be_the_body(service: ServiceServer, headers: dict[str, str]) -> None:
    answer = service.client.post(
        "/embed/text?normalize=false", content="ünï".encode(), headers=headers
    )

    assert answer.json()["data"][0]["embedding"] == expected_text_vector("ünï")


def test_an_empty_text_is_a_text(service: ServiceServer) -> None:
    assert post(service, {"texts": [""]}).json()["data"][0]["tokens"] == 0
    answer = service.client.post("/embed/text", content=b"", headers={"Content-Type": "text/plain"})
    assert answer.json()["usage"] == {"texts": 1, "tokens": 0}


def test_nothing_at_all_is_no_text(service: ServiceServer) -> None:
    refused(service.client.post("/embed/text"), 400, "no_texts")


def test_one_text_may_be_given_as_text(service: ServiceServer) -> None:
    one, listed = post(service, {"text": "ant"}), post(service, {"texts": ["ant"]})
    assert one.json()["data"] == listed.json()["data"]


def test_options_are_those_of_images(service: ServiceServer) -> None:
    encoded = post(service, {"texts": ["ant"], "encoding": "base64", "dtype": "float16"})
    vector = np.frombuffer(base64.b64decode(encoded.json()["data"][0]["embedding"]), "<f2")
    np.testing.assert_allclose(vector, unit("ant"), atol=1e-3)

    array = post(service, {"texts": ["ant", "bee"]}, headers={"Accept": "application/octet-stream"})
    assert array.headers["x-embedding-shape"] == "2,4"
    rows = np.frombuffer(array.content, "<f4").reshape(2, 4)
    np.testing.assert_allclose(rows, [unit("ant"), unit("bee")], rtol=1e-6)

    assert post(service, {"texts": ["ant"], "expect_space": SPACE}).status_code == 200
    refused(post(service, {"texts": ["ant"], "expect_space": "a:b"}), 412, "space_mismatch")


@pytest.mark.parametrize("body", [{}, {"texts": []}, {"texts": None}])
def test_a_request_without_a_text_says_how_one_is_sent(
    service: ServiceServer, body: object
) -> None:
    assert '{"texts": ["a red bicycle"]}' in refused(post(service, body), 400, "no_texts")


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({"texts": "ant"}, "invalid_parameter", "texts"),
        ({"texts": [1]}, "invalid_parameter", "texts[0]"),
        ({"texts": [{"text": "ant", "label": "x"}]}, "unknown_parameter", "label"),
        ({"texts": [{"id": "x"}]}, "invalid_parameter", "text"),
        ({"texts": ["ant"], "text": "bee"}, "invalid_parameter", "not both"),
        ({"texts": ["ant"], "output": "patches"}, "unknown_parameter", "output"),
        ({"images": ["ant"]}, "unknown_parameter", "texts"),
        ({"texts": ["ant"], "dtype": "float16"}, "invalid_parameter", "float16"),
        (["ant"], "invalid_json", '{"texts"'),
    ],
)
def test_what_is_wrong_is_named(
    service: ServiceServer, body: object, code: str, words: str
) -> None:
    assert words in refused(post(service, body), 400, code)


def test_too_many_and_too_long_texts_are_refused_by_the_setting(service: ServiceServer) -> None:
    message = refused(post(service, {"texts": ["a"] * 5}), 413, "too_many_texts")
    assert "SIGLIP_MAX_TEXTS" in message
    fits = post(service, {"texts": ["a" * 32, "ü" * 16]})
    assert fits.status_code == 200
    for text in ("a" * 33, "ü" * 17, "€" * 11):
        message = refused(post(service, {"texts": ["a", text]}), 413, "text_too_large")
        assert message.startswith("text 1 ")
        assert "SIGLIP_MAX_TEXT_BYTES" in message


def test_megabytes_are_refused_before_they_are_taken_apart(service: ServiceServer) -> None:
    for text in ("a" * 2**20, "{" * 2**20):
        refused(post(service, {"texts": [text]}), 413, "body_too_large")
    body = b'{"texts": [' + b"{}," * 1500 + b"{}]}"
    assert len(body) < 5 * (3 * 32 + 2**10)
    answer = service.client.post(
        "/embed/text", content=body, headers={"Content-Type": "application/json"}
    )
    refused(answer, 400, "invalid_json")


def test_the_commas_of_prose_do_not_count_as_values() -> None:
    with run_service(Settings(max_texts=1), FakeEmbedder(), texts=FakeTextEmbedder()) as service:
        answer = post(service, {"texts": ["[" * 4000 + ',"' * 2000]})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "body", [b'{"texts": ["\\ud800"]}', b'{"texts": ["\xff"]}', b'{"texts": ["a"'], ids=repr
)
def test_what_is_no_text_is_no_json(service: ServiceServer, body: bytes) -> None:
    answer = service.client.post(
        "/embed/text", content=body, headers={"Content-Type": "application/json"}
    )
    refused(answer, 400, "invalid_json")


def test_bytes_that_are_no_text_are_refused(service: ServiceServer) -> None:
    answer = service.client.post(
        "/embed/text", content=b"\xff\xfe", headers={"Content-Type": "text/plain"}
    )
    assert "UTF-8" in refused(answer, 400, "invalid_parameter")


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "image/png", "text/html"])
def test_other_forms_are_told_what_would_do(service: ServiceServer, kind: str) -> None:
    answer = service.client.post("/embed/text", content=b"ant", headers={"Content-Type": kind})
    assert "text/plain" in refused(answer, 415, "unsupported_media_type")


def test_a_text_that_fails_is_named(service: ServiceServer) -> None:
    answer = post(service, {"texts": ["ant", f"{RAISES}bee"]})

    assert answer.status_code == 500
    error = answer.json()["error"]
    assert error["message"] == "text 1: the model failed on this text"
    assert error["param"] == "texts[1]"
    assert error["details"][0]["message"] == "text 1: the model failed on this text"
    assert post(service, {"texts": ["ant"]}).status_code == 200


def test_a_service_without_texts_says_why() -> None:
    with run_service(Settings(), FakeEmbedder()) as service:
        message = refused(post(service, {"texts": ["ant"]}), 400, "text_disabled")
        model = service.client.get("/v1/models").json()["data"][0]
        health = service.client.get("/healthz").json()
    assert "only the image tower is loaded" in message
    assert (model["text"], model["text_space"], health["text_space"]) == (None, None, None)


def test_models_and_health_tell_of_texts(service: ServiceServer) -> None:
    model = service.client.get("/v1/models").json()["data"][0]
    health = service.client.get("/healthz").json()

    assert (model["text"], model["text_space"]) == (8, TEXT_SPACE)
    assert (model["logit_scale"], model["logit_bias"]) == (1.0, -1.0)
    assert (model["limits"]["texts"], model["limits"]["text_bytes"]) == (4, 32)
    assert health["text_space"] == TEXT_SPACE
    assert health["queue"]["texts"] == 0


def test_nothing_of_a_text_is_logged(
    capfd: pytest.CaptureFixture[str],
) -> None:
    # Of its own: what is logged after the last answer, too, is logged when it has ended.
    with run_service(Settings(), FakeEmbedder(), texts=FakeTextEmbedder()) as service:
        post(service, {"texts": ["secretword"]})
        post(service, {"texts": [f"{RAISES}secretword", "secretword" * 9]})
        post(service, {"secretword": json.dumps(["secretword"])})
        service.client.post("/embed/text", content=b"secretword", headers={"Content-Type": "a/b"})

    captured = capfd.readouterr()
    assert "secretword" not in captured.out + captured.err


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf-8"', "us-ascii"])
def test_a_text_may_say_that_it_is_utf_8(service: ServiceServer, charset: str) -> None:
    answer = service.client.post(
        "/embed/text", content=b"ant", headers={"Content-Type": f"text/plain; Charset={charset}"}
    )
    assert answer.status_code == 200


def test_a_text_of_another_encoding_is_not_read_as_another_text(service: ServiceServer) -> None:
    for charset, text in (
        ("utf-16le", "ant".encode("utf-16le")),
        ("latin-1", "Ã¼".encode("latin-1")),
    ):
        kind = f"text/plain; charset={charset}"
        answer = service.client.post("/embed/text", content=text, headers={"Content-Type": kind})
        assert "utf-8" in refused(answer, 415, "unsupported_media_type")


def test_json_that_is_not_called_so_is_no_text(service: ServiceServer) -> None:
    answer = service.client.post("/embed/text", content=b' {"texts": ["ant"]}')
    assert "application/json" in refused(answer, 415, "unsupported_media_type")
    named = service.client.post(
        "/embed/text", content=b"{ant}", headers={"Content-Type": "text/plain"}
    )
    assert named.status_code == 200
