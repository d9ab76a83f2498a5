"""POST /classify through a real socket: forms, labels, scores, refusals."""

import asyncio
import base64
import json
import math
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from app.engine.zero_shot import ScoredLabel, rank_labels
from app.settings import Settings
from tests.app.answers import check_error
from tests.app.fake_embedder import SPACE, FakeEmbedder, Headless, expected_pooled
from tests.app.fake_text_embedder import (
    RAISES,
    TEXT_SPACE,
    FakeTextEmbedder,
    WithoutScale,
    expected_text_vector,
)
from tests.app.images import plain_png
from tests.app.service_server import ServiceServer, run_service

COLOUR = (100, 2, 3)
PNG = plain_png(COLOUR)
GREY = base64.b64encode(PNG).decode()
# The fake sees the first letter and the length of a text.
LABELS = ["dog", "cat", "zebra"]
BARE = "{}"


@pytest.fixture(scope="module")
def texts() -> FakeTextEmbedder:
    return FakeTextEmbedder(max_batch_size=8)


@pytest.fixture(scope="module")
def service(texts: FakeTextEmbedder) -> Iterator[ServiceServer]:
    settings = Settings(max_images=3, max_text_bytes=64)
    with run_service(settings, FakeEmbedder(), texts=texts) as running:
        yield running


def post(service: ServiceServer, body: dict[str, Any], **options: Any) -> httpx.Response:
    return service.client.post("/classify", json={"images": [GREY], **body}, **options)


def unit(vector: list[float]) -> np.ndarray:
    return np.array(vector) / np.linalg.norm(vector)


def cosine(*prompts: str) -> float:
    mean = np.mean([unit(expected_text_vector(prompt)) for prompt in prompts], axis=0)
    return float(unit(mean.tolist()) @ unit(expected_pooled(COLOUR)))


def sigmoid(cosine_: float) -> float:
    return 1 / (1 + math.exp(-(math.e * cosine_ - 1)))  # the fake's scale and bias are 1 and -1


def labels_of(answer: httpx.Response, index: int = 0) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    labels: list[dict[str, Any]] = answer.json()["data"][index]["labels"]
    return labels


def refused(answer: httpx.Response, status: int, code: str, param: str | None) -> str:
    return str(check_error(answer, status, code, param)["message"])


def test_an_answer_tells_labels_best_first_and_of_what_they_come(service: ServiceServer) -> None:
    body = {"images": [GREY, {"id": "sku-1", "data": GREY}], "labels": LABELS, "template": BARE}
    answer = post(service, body)

    content = answer.json()
    assert content["space"] == answer.headers["x-embedding-space"] == SPACE
    assert (content["text_space"], content["scoring"]) == (TEXT_SPACE, "sigmoid")
    assert (content["model"], content["revision"]) == ("fake/colours", "0" * 40)
    assert content["usage"] == {"images": 2, "failed": 0, "texts": 3, "tokens": 11}
    assert [item["id"] for item in content["data"]] == [None, "sku-1"]
    assert content["data"][0]["image"]["format"] == "PNG"
    assert content["data"][0]["warnings"] == []
    assert content["data"][0]["labels"] == content["data"][1]["labels"]
    for label in labels_of(answer):
        assert label.keys() == {"label", "score", "cosine"}
        assert label["cosine"] == pytest.approx(cosine(label["label"]), rel=1e-6)
        assert label["score"] == pytest.approx(sigmoid(label["cosine"]), rel=1e-12)
    scores = [label["score"] for label in labels_of(answer)]
    assert scores == sorted(scores, reverse=True)
    timings = answer.headers["server-timing"].split(",")
    assert {"tokenize", "decode", "forward"} <= {one.split(";")[0].strip() for one in timings}


def test_the_default_template_is_that_of_the_reference(service: ServiceServer) -> None:
    answer = post(service, {"labels": LABELS})

    (first, *_) = labels_of(answer)
    # All prompts begin alike and are cut: the fake cannot tell them apart, and keeps their order.
    assert [label["label"] for label in labels_of(answer)] == LABELS
    assert first["cosine"] == pytest.approx(cosine("This is a photo of dog."), rel=1e-6)
    assert answer.json()["data"][0]["warnings"] == ["text_truncated"]


@pytest.mark.parametrize("form", ["raw", "multipart", "multipart-members", "query", "json"])
def test_every_form_takes_labels_and_templates(service: ServiceServer, form: str) -> None:
    lists = {"labels": ["dog", "cat"], "template": ["{}", "a {}"]}
    files = [("images", ("a.png", PNG))]
    if form == "raw":
        answer = service.client.post("/classify", params=lists, content=PNG)
    elif form == "query":
        answer = service.client.post("/classify", params=lists, files=files)
    elif form.startswith("multipart"):
        names = {"labels": "labels[]", "template": "template[0]"} if "members" in form else {}
        fields = [
            (names.get(name, name), (None, value))
            for name, values in lists.items()
            for value in values
        ]
        answer = service.client.post("/classify", files=[*files, *fields, ("top_k", (None, ""))])
    else:
        answer = post(service, lists)

    found = {label["label"]: label["cosine"] for label in labels_of(answer)}
    assert found == pytest.approx(
        {"dog": cosine("dog", "a dog"), "cat": cosine("cat", "a cat")}, rel=1e-6
    )


def test_a_label_may_have_prompts_of_its_own(service: ServiceServer) -> None:
    labels = ["cat", {"label": "a dog", "prompts": ["dog", "whelp", "{}"]}, {"label": "zebra"}]
    answer = post(service, {"labels": labels, "template": "{}s"})

    found = {label["label"]: label["cosine"] for label in labels_of(answer)}
    expected = {
        "cat": cosine("cats"),
        "a dog": cosine("dog", "whelp", "{}"),
        "zebra": cosine("zebras"),
    }
    assert found == pytest.approx(expected, rel=1e-6)


def test_a_label_is_never_read_as_a_format(service: ServiceServer) -> None:
    labels = ["{0.__class__}", "{}", "}{", "%s"]

    assert {label["label"] for label in labels_of(post(service, {"labels": labels}))} == {*labels}


def test_scores_follow_the_scoring(service: ServiceServer) -> None:
    by = {
        scoring: labels_of(post(service, {"labels": LABELS, "template": "{}", "scoring": scoring}))
        for scoring in ("sigmoid", "softmax", "cosine")
    }

    assert [label["cosine"] for label in by["softmax"]] == [x["score"] for x in by["cosine"]]
    powers = [math.exp(math.e * label["cosine"]) for label in by["softmax"]]
    shares = [power / sum(powers) for power in powers]
    assert [label["score"] for label in by["softmax"]] == pytest.approx(shares, rel=1e-12)
    assert len({tuple(label["label"] for label in labels) for labels in by.values()}) == 1


def test_top_k_and_threshold_shorten_the_list(service: ServiceServer) -> None:
    body = {"labels": LABELS, "template": "{}", "scoring": "cosine"}
    ranked = labels_of(post(service, body))

    assert labels_of(post(service, body | {"top_k": 2})) == ranked[:2]
    assert labels_of(post(service, body | {"top_k": 9, "threshold": None})) == ranked
    second = ranked[1]["score"]
    assert labels_of(post(service, body | {"threshold": second})) == ranked[:2]
    assert labels_of(post(service, body | {"threshold": second, "top_k": 1})) == ranked[:1]
    assert labels_of(post(service, body | {"threshold": 1})) == []


def test_labels_are_embedded_once(service: ServiceServer, texts: FakeTextEmbedder) -> None:
    body = {"labels": ["once", "upon"], "template": "{}"}
    first = post(service, body)
    batches = len(texts.batches)
    again = post(service, body)

    assert first.json() == again.json()
    assert len(texts.batches) == batches
    assert "tokenize" in first.headers["server-timing"]
    assert "tokenize" not in again.headers["server-timing"]


def test_a_bad_image_fails_alone_where_that_is_asked_for(service: ServiceServer) -> None:
    body = {"images": [GREY, "AAAA"], "labels": LABELS}

    failed = post(service, body)
    message = refused(failed, 415, "unsupported_image_format", "images[1]")
    assert message.startswith("image 1: ")
    partial = post(service, body | {"on_error": "partial"})
    good, bad = partial.json()["data"]
    assert len(good["labels"]) == 3
    assert bad.keys() == {"index", "id", "error"}
    assert bad["error"]["code"] == "unsupported_image_format"
    assert partial.json()["usage"]["failed"] == 1


def test_a_prompt_that_fails_is_told_by_its_label(service: ServiceServer) -> None:
    labels = ["cat", {"label": "dog", "prompts": ["dog", f"{RAISES}dog"]}]
    answer = post(service, {"labels": labels, "template": "{}"})

    error = check_error(answer, 500, "internal", "labels[1]")
    assert error["message"] == "label 1: the model failed on this text"
    assert [detail["index"] for detail in error["details"]] == [1]


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "labels", '"labels"'),
        ({"labels": []}, "labels", '"labels"'),
        ({"labels": ["cat", ""]}, "labels[1]", "empty"),
        ({"labels": ["cat", " \n"]}, "labels[1]", "empty"),
        ({"labels": [{"label": "", "prompts": ["cat"]}]}, "labels[0]", "empty"),
        ({"labels": ["cat", "dog", "cat"]}, "labels[2]", "label 2 is label 0 again"),
        (
            {"labels": ["cat", {"label": "cat", "prompts": ["dog"]}]},
            "labels[1]",
            "label 1 is label 0 again",
        ),
        ({"labels": ["cat"], "template": "a photo"}, "template", "{}"),
        ({"labels": ["cat"], "template": "{} and {}"}, "template", "{}"),
        ({"labels": ["cat"], "template": ""}, "template", "{}"),
        ({"labels": ["cat"], "template": ["{}", "{}{}"]}, "template[1]", "once"),
        ({"labels": ["cat"], "template": []}, "template", "at least 1"),
        ({"labels": ["cat"], "template": [1]}, "template[0]", "string"),
        ({"labels": "cat"}, "labels", "list"),
        ({"labels": [1]}, "labels[0]", ""),
        ({"labels": [{"label": "cat", "prompts": []}]}, "labels[0].prompts", "at least 1"),
        ({"labels": [{"label": "cat", "prompts": [1]}]}, "labels[0].prompts[0]", "string"),
        ({"labels": [{"prompts": ["cat"]}]}, "labels[0].label", "required"),
        ({"labels": ["cat"], "scoring": "logit"}, "scoring", "sigmoid"),
        ({"labels": ["cat"], "scoring": None}, "scoring", "sigmoid"),
        ({"labels": ["cat"], "top_k": 0}, "top_k", "1"),
        ({"labels": ["cat"], "threshold": 2}, "threshold", "1"),
        ({"labels": ["cat"], "threshold": "nan"}, "threshold", ""),
    ],
)
def test_what_is_wrong_is_named(
    service: ServiceServer, body: dict[str, Any], param: str, words: str
) -> None:
    assert words in refused(post(service, body), 400, "invalid_parameter", param)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"labels": ["cat"], "output": "both"}, "output"),
        ({"labels": [{"label": "cat", "texts": ["cat"]}]}, "labels[0].texts"),
        ({"labels": [{"label": "cat", "a" * 99: 1}]}, "a" * 64),
    ],
)
def test_what_is_unknown_is_named(service: ServiceServer, body: dict[str, Any], param: str) -> None:
    refused(post(service, body), 400, "unknown_parameter", param)


def test_labels_in_two_places_must_be_the_same(service: ServiceServer) -> None:
    same = post(service, {"labels": ["cat"]}, params={"labels": "cat"})
    other = post(service, {"labels": ["cat"]}, params={"labels": ["cat", "dog"]})

    assert len(labels_of(same)) == 1
    assert "twice" in refused(other, 400, "invalid_parameter", "labels")


def test_a_request_needs_images_as_well(service: ServiceServer) -> None:
    refused(post(service, {"images": [], "labels": ["cat"]}), 400, "no_images", "images")
    answer = service.client.post("/classify", params={"labels": "cat"})
    refused(answer, 400, "no_images", None)


def test_a_thousand_prompts_and_no_more(service: ServiceServer) -> None:
    words = [f"w{index}" for index in range(1_001)]
    fits = post(service, {"labels": words[:1_000]})
    assert len(labels_of(fits)) == 1_000
    for body in (
        {"labels": words},
        {"labels": words[:501], "template": ["{}", "a {}"]},
        {"labels": [{"label": "all", "prompts": words}]},
        {"labels": ["one", {"label": "all", "prompts": words[:1_000]}]},
        {"labels": ["one"], "template": ["{}"] * 1_001},
        {"labels": ["one"] * 5_000},
    ):
        message = refused(post(service, body), 413, "too_many_labels", "labels")
        assert "1000 prompts" in message


def test_a_form_has_room_for_a_thousand_labels(service: ServiceServer) -> None:
    fields = [("labels", (None, f"w{index}")) for index in range(1_001)]
    files = [("images", ("a.png", PNG))]

    answer = service.client.post("/classify", files=[*files, *fields[:1_000]])
    assert len(labels_of(answer)) == 1_000
    answer = service.client.post("/classify", files=[*files, *fields])
    refused(answer, 413, "too_many_labels", "labels")
    answer = service.client.post("/classify", files=[*files, *fields * 3])
    refused(answer, 400, "invalid_multipart", None)


@pytest.mark.parametrize(
    "body",
    [
        {"labels": ["cat", "a" * 65]},
        {"labels": ["cat", "ü" * 33]},
        {"labels": ["cat", "a" * 60]},  # too long in its template
        {"labels": ["cat", {"label": "dog", "prompts": ["a" * 65]}]},
    ],
)
def test_a_label_that_is_too_long_is_named(service: ServiceServer, body: dict[str, Any]) -> None:
    answer = post(service, body | {"template": "photo of {}"})

    assert "SIGLIP_MAX_TEXT_BYTES" in refused(answer, 413, "text_too_large", "labels[1]")


def test_commas_in_labels_are_no_values(service: ServiceServer) -> None:
    labels = [f"{index}, [{{{',' * 30}" for index in range(900)]

    assert len(labels_of(post(service, {"labels": labels, "template": "{}"}))) == 900


def test_a_body_of_far_too_many_values_is_refused_before_it_is_read(
    service: ServiceServer,
) -> None:
    body = {"labels": ["cat"], "images": [[] for _ in range(30_000)]}
    assert "values" in refused(post(service, body), 400, "invalid_json", None)


def test_an_answer_of_too_many_labels_is_refused_before_any_work() -> None:
    settings = Settings(max_response_bytes=20_000)
    embedder = FakeEmbedder()
    with run_service(settings, embedder, texts=FakeTextEmbedder()) as service:
        words = [f"w{index}" for index in range(300)]
        answer = post(service, {"labels": words})
        shortened = post(service, {"labels": words, "top_k": 5})
    refused(answer, 413, "response_too_large", None)
    assert len(labels_of(shortened)) == 5
    assert len(embedder.computed) == 1


@pytest.mark.parametrize(("labels", "where"), [(1, "loop"), (1_000, "thread")])
def test_many_labels_are_ranked_in_a_thread_though_few_are_told(
    service: ServiceServer, monkeypatch: pytest.MonkeyPatch, labels: int, where: str
) -> None:
    ranked_in = []

    def rank(*arguments: Any) -> list[ScoredLabel]:
        ranked_in.append("loop" if asyncio._get_running_loop() else "thread")
        return rank_labels(*arguments)

    monkeypatch.setattr("app.api.classify.rank_labels", rank)
    words = [f"word {number}" for number in range(labels)]
    answer = post(service, {"labels": words, "top_k": 1, "images": [GREY, GREY]})

    assert len(labels_of(answer)) == 1
    assert ranked_in == [where, where]


def test_scores_are_json_only(service: ServiceServer) -> None:
    answer = post(service, {"labels": ["cat"]}, headers={"Accept": "application/x-npy"})

    assert "application/json" in refused(answer, 406, "not_acceptable", None)


def test_a_service_without_texts_says_so() -> None:
    with run_service(Settings(), FakeEmbedder()) as service:
        answer = post(service, {"labels": ["cat"]})
    assert "image tower" in refused(answer, 400, "text_disabled", None)


@pytest.mark.parametrize("missing", ["logit_scale", "logit_bias"])
def test_without_scale_or_bias_there_are_cosines_only(missing: str) -> None:
    with run_service(Settings(), FakeEmbedder(), texts=WithoutScale(missing=missing)) as service:
        for scoring in ("sigmoid", "softmax"):
            answer = post(service, {"labels": ["cat"], "scoring": scoring})
            message = refused(answer, 400, "invalid_parameter", "scoring")
            assert "scoring=cosine" in message
        answer = post(service, {"labels": ["cat"], "scoring": "cosine"})
    assert len(labels_of(answer)) == 1


def test_a_model_without_pooling_head_cannot_compare() -> None:
    with run_service(Settings(), Headless(), texts=FakeTextEmbedder()) as service:
        answer = post(service, {"labels": ["cat"]})
    assert "pooling head" in refused(answer, 400, "text_disabled", None)


def test_nothing_of_a_label_is_logged_or_repeated_in_an_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    settings = Settings(max_images=3, max_text_bytes=64)
    # Of its own: what is logged after the last answer, too, is logged when it has ended.
    with run_service(settings, FakeEmbedder(), texts=FakeTextEmbedder()) as service:
        post(service, {"labels": ["secretword"]})
        answers = [
            post(service, {"labels": ["secretword", "secretword"]}),
            post(service, {"labels": [f"{RAISES}secretword"], "template": "{}"}),
            post(service, {"labels": ["cat"], "template": "secretword"}),
            post(service, {"labels": [{"label": ["secretword"]}]}),
            post(service, {"labels": ["secretword" * 99]}),
        ]

    captured = capfd.readouterr()
    assert all(answer.status_code >= 400 for answer in answers)
    assert "secretword" not in captured.out + captured.err + "".join(a.text for a in answers)


def test_the_example_of_the_description_works_as_it_is(service: ServiceServer) -> None:
    description = service.client.get("/openapi.json").json()
    content = description["paths"]["/classify"]["post"]["requestBody"]["content"]

    answer = service.client.post("/classify", json=content["application/json"]["example"])

    assert [item["id"] for item in answer.json()["data"]] == [None, "sku-1"]
    assert len(labels_of(answer)) == 2
    form = content["multipart/form-data"]["schema"]["properties"]
    fields = [
        (name, (None, value))
        for name, schema in form.items()
        for value in schema.get("examples", [[]])[0]
    ]
    answer = service.client.post("/classify", files=[("images", ("a.png", PNG)), *fields])
    assert len(labels_of(answer)) == 2
    json.dumps(description)
