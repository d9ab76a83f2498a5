"""POST /v1/embeddings through a real socket: forms of inputs, options, answers, refusals."""

import base64
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from app.settings import Settings
from tests.app.answers import check_error, from_base64
from tests.app.fake_embedder import RAISES, SPACE, FakeEmbedder, expected_pooled
from tests.app.fake_text_embedder import RAISES as TEXT_RAISES
from tests.app.fake_text_embedder import FakeTextEmbedder, expected_text_vector
from tests.app.images import plain_png, truncated_jpeg
from tests.app.service_server import ServiceServer, run_service

RED, BLUE = (90, 0, 0), (0, 0, 90)
BARE = base64.b64encode(plain_png(RED)).decode()
DATA_URI = f"data:image/png;base64,{BARE}"
BLUE_URI = "data:image/png;base64," + base64.b64encode(plain_png(BLUE)).decode()
URL = "https://images.example.com/a.png"


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceServer]:
    settings = Settings(max_images=3, max_texts=4, max_text_bytes=64)
    with run_service(settings, FakeEmbedder(), texts=FakeTextEmbedder()) as running:
        yield running


def post(service: ServiceServer, body: object, **options: Any) -> httpx.Response:
    return service.client.post("/v1/embeddings", json=body, **options)


def unit(vector: list[float]) -> np.ndarray:
    return np.array(vector) / np.linalg.norm(vector)


def vectors(answer: httpx.Response) -> list[list[float]]:
    assert answer.status_code == 200, answer.text
    return [item["embedding"] for item in answer.json()["data"]]


def assert_red(answer: httpx.Response) -> None:
    (vector,) = vectors(answer)
    np.testing.assert_allclose(vector, unit(expected_pooled(RED)), rtol=1e-6)


def assert_text(answer: httpx.Response, text: str) -> None:
    (vector,) = vectors(answer)
    np.testing.assert_allclose(vector, unit(expected_text_vector(text)), rtol=1e-6)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings"])
def test_an_answer_is_openais(service: ServiceServer, path: str) -> None:
    answer = service.client.post(path, json={"input": ["ant", DATA_URI, "a bee"]})

    content = answer.json()
    assert content.keys() == {"object", "data", "model", "usage"}
    assert (content["object"], content["model"]) == ("list", "fake/colours")
    assert content["usage"] == {"prompt_tokens": 8, "total_tokens": 8}
    assert [item["index"] for item in content["data"]] == [0, 1, 2]
    assert all(item.keys() == {"object", "index", "embedding"} for item in content["data"])
    assert answer.headers["x-embedding-space"] == SPACE
    raw = [expected_text_vector("ant"), expected_pooled(RED), expected_text_vector("a bee")]
    np.testing.assert_allclose(vectors(answer), [unit(vector) for vector in raw], rtol=1e-6)


@pytest.mark.parametrize(
    "given",
    [
        DATA_URI,
        "DATA:image/png;base64," + BARE,
        [DATA_URI],
        {"image": DATA_URI},
        {"image": BARE},
        {"url": DATA_URI},
        {"bytes": BARE},
        {"image": BARE, "text": None},
        {"type": "image_url", "image_url": DATA_URI},
        {"type": "image_url", "image_url": {"url": DATA_URI, "detail": "auto"}},
        {"type": "image_base64", "image_base64": DATA_URI},
        {"type": "image_base64", "image_base64": BARE},
    ],
)
def test_an_image_comes_in_any_form(service: ServiceServer, given: object) -> None:
    assert_red(post(service, {"input": given}))
    assert_red(post(service, {"input": given, "modality": "text"}))
    if isinstance(given, dict):
        assert_red(post(service, {"messages": [{"role": "user", "content": [given]}]}))


@pytest.mark.parametrize(
    "given", ["ant", ["ant"], {"text": "ant"}, {"type": "text", "text": "ant"}]
)
def test_a_text_comes_in_any_form(service: ServiceServer, given: object) -> None:
    assert_text(post(service, {"input": given}), "ant")
    if isinstance(given, dict):
        assert_text(post(service, {"messages": [{"role": "user", "content": [given]}]}), "ant")
        assert_text(post(service, {"input": given, "modality": "image"}), "ant")


def test_what_an_object_calls_a_text_is_one(service: ServiceServer) -> None:
    for text in (URL, "data:,ant", ""):
        assert_text(post(service, {"input": {"text": text}}), text)
    assert_text(post(service, {"input": URL, "modality": "text"}), URL)
    assert_text(post(service, {"messages": [{"role": "user", "content": URL}]}), URL)
    assert_text(post(service, {"input": "x" * 64}), "x" * 64)  # not base64 for being long


def test_strings_are_images_where_it_is_said(service: ServiceServer) -> None:
    assert_red(post(service, {"input": BARE, "modality": "image"}))
    answer = post(service, {"input": ["ant!"], "modality": "image"})
    check_error(answer, 400, "invalid_base64", "input[0]")


@pytest.mark.parametrize("named", ["fake/colours", "colours", None])
def test_the_served_model_may_be_named(service: ServiceServer, named: str | None) -> None:
    assert_text(post(service, {"input": "ant", "model": named}), "ant")


@pytest.mark.parametrize("named", ["", "fake", "text-embedding-3-small", "fake/colours/"])
def test_another_model_is_not_found(service: ServiceServer, named: str) -> None:
    answer = post(service, {"input": "ant", "model": named})
    error = check_error(answer, 404, "model_not_found", "model")
    assert error["message"] == "the model served here is fake/colours"


@pytest.mark.parametrize("name", ["encoding_format", "embedding_type"])
def test_vectors_are_bit_for_bit_those_of_the_other_routes(
    service: ServiceServer, name: str
) -> None:
    for normalized in (True, False):
        ours = post(service, {"input": [DATA_URI, "ant"], name: "base64", "normalized": normalized})
        options = {"encoding": "base64", "normalize": normalized}
        image = service.client.post("/embed", json={"images": [DATA_URI], **options})
        text = service.client.post("/embed/text", json={"texts": ["ant"], **options})
        assert vectors(ours) == vectors(image) + vectors(text)
    assert from_base64(vectors(ours)[0]).tolist() == expected_pooled(RED)  # type: ignore[arg-type]
    floats = post(service, {"input": [DATA_URI], name: "float", "normalized": False})
    assert vectors(floats) == [expected_pooled(RED)]


@pytest.mark.parametrize(
    "options",
    [
        {"dimensions": 4},
        {"truncate": True},
        {"truncate": "END"},
        {"truncate": False},
        {"task": "retrieval.query"},
        {"input_type": "passage"},
        {"padding": "max_length"},
        {"padding": True},
        {"late_chunking": False},
        {"user": "u-1"},
        {"normalized": None, "dimensions": None, "encoding_format": None},
        {"encoding_format": "float", "embedding_type": "float"},
    ],
)
def test_what_we_do_may_be_asked_for(service: ServiceServer, options: dict[str, Any]) -> None:
    assert_text(post(service, {"input": "ant", **options}), "ant")


@pytest.mark.parametrize(
    ("options", "code", "param", "words"),
    [
        ({"dimensions": 3}, "dimensions_unsupported", "dimensions", "4 dimensions"),
        ({"dimensions": "4"}, "invalid_parameter", "dimensions", "integer"),
        ({"encoding_format": "int8"}, "invalid_parameter", "encoding_format", "base64"),
        (
            {"encoding_format": "float", "embedding_type": "base64"},
            "invalid_parameter",
            "embedding_type",
            "two values",
        ),
        ({"modality": "audio"}, "invalid_parameter", "modality", "image"),
        ({"normalized": "no"}, "invalid_parameter", "normalized", "boolean"),
        ({"truncate": "START"}, "invalid_parameter", "truncate", "END"),
        ({"task": "classification"}, "invalid_parameter", "task", "text-matching"),
        ({"input_type": "clustering"}, "invalid_parameter", "input_type", "query"),
        ({"padding": "longest"}, "invalid_parameter", "padding", "max_length"),
        ({"padding": False}, "invalid_parameter", "padding", "max_length"),
        ({"padding": 1}, "invalid_parameter", "padding", "number"),
        ({"truncate": 1.0}, "invalid_parameter", "truncate", "number"),
        ({"late_chunking": 0}, "invalid_parameter", "late_chunking", "number"),
        ({"late_chunking": True}, "invalid_parameter", "late_chunking", "False"),
        ({"instructions": "x"}, "unknown_parameter", "instructions", "encoding_format"),
        ({"messages": []}, "invalid_parameter", "messages", "not both"),
        ({"messages": None}, "invalid_parameter", "messages", "not both"),
    ],
)
def test_what_we_do_not_do_is_refused_by_name(
    service: ServiceServer, options: dict[str, Any], code: str, param: str, words: str
) -> None:
    error = check_error(post(service, {"input": "ant", **options}), 400, code, param)
    assert words in error["message"]


@pytest.mark.parametrize(
    ("given", "code", "param", "words"),
    [
        ([], "invalid_parameter", "input", '{"input": ['),
        (None, "invalid_parameter", "input", '{"input": ['),
        (["ant", 1.5], "invalid_parameter", "input[1]", "string"),
        (["ant", None], "invalid_parameter", "input[1]", "string"),
        ([True], "invalid_parameter", "input[0]", "string"),
        ([{}], "invalid_parameter", "input[0]", "exactly one"),
        ([{"text": "ant", "image": BARE}], "invalid_parameter", "input[0]", "exactly one"),
        ([{"type": "text", "image": BARE}], "invalid_parameter", "input[0]", "has text"),
        ([{"type": "audio", "text": "a"}], "invalid_parameter", "input[0].type", "image_url"),
        ([{"text": 1}], "invalid_parameter", "input[0].text", "string"),
        ([{"image_url": {"url": DATA_URI, "detail": "low"}}], "invalid_parameter", None, "auto"),
        ([{"image_url": {"uri": DATA_URI}}], "invalid_parameter", None, "url"),
        ([{"text": "ant", "id": "x"}], "unknown_parameter", "id", "image_base64"),
        ([{"image": "*"}], "invalid_base64", "input[0]", "not base64"),
    ],
)
def test_an_input_that_is_none_is_named(
    service: ServiceServer, given: object, code: str, param: str | None, words: str
) -> None:
    param = param or "input[0].image_url"
    error = check_error(post(service, {"input": given}), 400, code, param)
    assert words in error["message"]


@pytest.mark.parametrize(
    "tokens",
    [[1], [1, 2, 3], [[1, 2], [3]], [[]], ["ant", [1]], [[5] * 8_000] * 30, [-1]],
)
def test_token_ids_are_refused_in_words_that_help(service: ServiceServer, tokens: object) -> None:
    error = check_error(post(service, {"input": tokens}), 400, "tokens_unsupported", "input")
    assert "check_embedding_ctx_length=False" in error["message"]


@pytest.mark.parametrize(
    "messages",
    [
        [],
        "ant",
        [{"role": "user", "content": []}],
        [{"role": "user", "content": [{"type": "text", "text": "a"}] * 2}],
        [{"role": "user", "content": "a"}] * 2,
        [{"role": "user", "content": "a", "name": "x"}],
        [{"role": "user"}],
        [1],
    ],
)
def test_messages_are_one_input(service: ServiceServer, messages: object) -> None:
    answer = post(service, {"messages": messages})
    error = check_error(answer, 400, "invalid_parameter", "messages")
    assert "one message" in error["message"]


def test_inputs_of_messages_are_named_so(service: ServiceServer) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,*"}}
    answer = post(service, {"messages": [{"role": "user", "content": [part]}]})
    check_error(answer, 400, "invalid_base64", "messages[0]")


def test_urls_need_the_setting(service: ServiceServer) -> None:
    for given in (URL, {"url": URL}, {"image": URL}, {"image_url": {"url": URL}}):
        error = check_error(
            post(service, {"input": ["ant", given]}), 403, "url_input_disabled", "input[1]"
        )
        assert "SIGLIP_URL_INPUT" in error["message"]
        assert "modality text" in error["message"]


def test_where_urls_are_on_they_are_fetched_as_by_embed() -> None:
    with run_service(Settings(url_input=True), FakeEmbedder()) as service:
        forbidden = post(service, {"input": "http://127.0.0.1/a.png"})
        many = post(service, {"input": [URL] * 5})
    check_error(forbidden, 422, "url_forbidden", "input[0]")
    check_error(many, 413, "too_many_images")


def test_limits_are_the_settings(service: ServiceServer) -> None:
    assert len(vectors(post(service, {"input": [DATA_URI] * 3 + ["ant"] * 4}))) == 7
    images = check_error(post(service, {"input": [DATA_URI] * 4}), 413, "too_many_images", "input")
    texts = check_error(post(service, {"input": ["a"] * 5}), 413, "too_many_texts", "input")
    long = check_error(
        post(service, {"input": [DATA_URI, "ü" * 33]}), 413, "text_too_large", "input[1]"
    )
    assert "SIGLIP_MAX_IMAGES" in images["message"]
    assert "SIGLIP_MAX_TEXTS" in texts["message"]
    assert "SIGLIP_MAX_TEXT_BYTES" in long["message"]


@pytest.mark.parametrize("truncate", [False, "NONE"])
def test_a_text_that_would_be_cut_is_refused_where_that_is_asked_for(
    service: ServiceServer, truncate: object
) -> None:
    body = {"input": [DATA_URI, "ant", "longer than it"], "truncate": truncate}
    error = check_error(post(service, body), 413, "text_too_large", "input[2]")
    assert error["message"].startswith("input 2 has 14 tokens, of which the model sees 8")


def test_what_fails_is_named_by_its_place_among_all(service: ServiceServer) -> None:
    broken = "data:image/jpeg;base64," + base64.b64encode(truncated_jpeg()).decode()
    error = check_error(
        post(service, {"input": ["ant", DATA_URI, broken]}), 422, "image_truncated", "input[2]"
    )
    assert error["message"].startswith("input 2: ")
    assert error["details"][0]["index"] == 2
    text = check_error(
        post(service, {"input": [DATA_URI, f"{TEXT_RAISES}ant"]}), 500, "internal", "input[1]"
    )
    assert text["message"] == "input 1: the model failed on this text"
    failing = base64.b64encode(plain_png((RAISES, 0, 0))).decode()
    both = post(service, {"input": [f"{TEXT_RAISES}ant", {"image": failing}]})
    assert both.status_code == 500
    assert_text(post(service, {"input": "ant"}), "ant")


@pytest.mark.parametrize("waiting", ["texts", "images"])
def test_images_and_texts_do_not_wait_for_each_other(waiting: str) -> None:
    images, texts = FakeEmbedder(), FakeTextEmbedder()
    gate = (texts if waiting == "texts" else images).gate
    gate.clear()
    answers: list[httpx.Response] = []
    with run_service(Settings(), images, texts=texts) as service:
        asking = threading.Thread(
            target=lambda: answers.append(post(service, {"input": [DATA_URI, "ant"]}))
        )
        asking.start()
        (texts if waiting == "texts" else images).wait_until_entered()
        give_up_at = time.monotonic() + 30
        while not (texts.threads and images.resized):
            assert time.monotonic() < give_up_at, "the others have not been prepared"
            time.sleep(0.005)
        gate.set()
        asking.join()
    assert len(vectors(answers[0])) == 2


def test_without_a_text_tower_images_are_embedded_and_texts_refused() -> None:
    with run_service(Settings(), FakeEmbedder()) as service:
        assert_red(post(service, {"input": DATA_URI}))
        check_error(post(service, {"input": [DATA_URI, "ant"]}), 400, "text_disabled")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_only_json_is_read(service: ServiceServer, kind: str) -> None:
    answer = service.client.post(
        "/v1/embeddings", content=b'{"input": "ant"}', headers={"Content-Type": kind}
    )
    check_error(answer, 415, "unsupported_media_type")


def test_options_are_not_read_from_the_query(service: ServiceServer) -> None:
    answer = service.client.post("/v1/embeddings?input=ant", json={"input": "ant"})
    check_error(answer, 400, "unknown_parameter", "input")


def test_an_answer_is_json(service: ServiceServer) -> None:
    answer = post(service, {"input": "ant"}, headers={"Accept": "application/x-npy"})
    check_error(answer, 406, "not_acceptable")


def test_prose_has_as_many_commas_as_it_likes() -> None:
    with run_service(
        Settings(max_images=1, max_texts=1), FakeEmbedder(), texts=FakeTextEmbedder()
    ) as small:
        assert post(small, {"input": "[" * 4000 + ',"' * 2000}).status_code == 200


def test_nothing_of_an_input_is_logged(
    capfd: pytest.CaptureFixture[str],
) -> None:
    # Of its own: what is logged after the last answer, too, is logged when it has ended.
    with run_service(Settings(), FakeEmbedder(), texts=FakeTextEmbedder()) as service:
        for body in (
            {"input": "secretword"},
            {"input": [f"{TEXT_RAISES}secretword", "secretword" * 9]},
            {"input": "ant", "secretword": "secretword"},
            {"input": [{"image": "secretword"}], "user": "secretword", "model": "secretword"},
        ):
            post(service, body)
    captured = capfd.readouterr()
    assert "secretword" not in captured.out + captured.err
