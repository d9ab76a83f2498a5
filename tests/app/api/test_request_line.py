"""The one line in the log for each request: what a person searches for, nothing of the input."""

from collections.abc import Callable, MutableMapping
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from app.settings import Settings
from tests.adversarial.raw_client import connect, head
from tests.app.answers import post_images
from tests.app.fake_embedder import FakeEmbedder
from tests.app.fake_text_embedder import FakeTextEmbedder
from tests.app.images import NO_IMAGE, plain_png
from tests.app.service_server import ServiceServer, run_service

PNG = plain_png((10, 20, 30))
MARK = "mark3r"
ALWAYS = {"event", "log_level", "method", "route", "status", "ms"}
READ = {"read_ms", "bytes_in", "bytes_out"}
OF_IMAGES = READ | {"images", "decode_ms", "queue_ms", "forward_ms", "serialize_ms"}
OF_TEXTS = READ | {"texts", "tokenize_ms", "queue_ms", "forward_ms", "serialize_ms"}

Ask = Callable[[ServiceServer], object]


def log_of(ask: Ask, **settings: Any) -> list[MutableMapping[str, Any]]:
    """Return all that a service logs while it is asked; it has ended when the lines are read."""
    embedder, texts = FakeEmbedder(), FakeTextEmbedder()
    with capture_logs() as lines, run_service(Settings(**settings), embedder, texts=texts) as one:
        ask(one)
    return lines


def line_of(ask: Ask, **settings: Any) -> MutableMapping[str, Any]:
    """Return the one line of the one request."""
    (line,) = [line for line in log_of(ask, **settings) if line["event"] == "request"]
    return line


def test_a_request_for_images_tells_what_it_was_and_where_its_time_went() -> None:
    answers: list[httpx.Response] = []
    line = line_of(lambda service: answers.append(post_images(service.client, "raw", [PNG])))

    assert line.keys() == ALWAYS | OF_IMAGES
    assert (line["method"], line["route"], line["status"]) == ("POST", "/embed", 200)
    assert (line["images"], line["bytes_in"]) == (1, len(PNG))
    assert line["bytes_out"] == len(answers[0].content)
    stages_ms = sum(line[stage] for stage in line if stage.endswith("_ms"))
    assert 0 < stages_ms <= line["ms"] + 0.5  # each is rounded


def test_a_request_for_texts_tells_how_many() -> None:
    line = line_of(lambda service: service.client.post("/embed/text", json={"texts": ["a", "b"]}))

    assert line.keys() == ALWAYS | OF_TEXTS
    assert line["texts"] == 2


def test_a_request_for_both_tells_of_both() -> None:
    json = {"images": ["data:image/png;base64,"], "labels": ["a", "b", "c"], "on_error": "partial"}
    line = line_of(lambda service: service.client.post("/classify", json=json))

    assert line.keys() == ALWAYS | OF_TEXTS | {"images", "decode_ms"}
    assert (line["images"], line["texts"]) == (1, 3)


@pytest.mark.parametrize(
    ("ask", "status", "code", "also"),
    [
        (lambda service: service.client.get("/none"), 404, "not_found", {"bytes_out"}),
        (
            lambda service: post_images(service.client, "raw", [NO_IMAGE]),
            415,
            "unsupported_image_format",
            READ | {"images", "decode_ms"},
        ),
        (
            lambda service: service.client.post("/embed/text", json={"text": "!"}),
            500,
            "internal",
            OF_TEXTS - {"serialize_ms"},
        ),
        (
            lambda service: post_images(
                service.client, "raw", [PNG], headers={"Content-Encoding": "gzip"}
            ),
            415,
            "unsupported_media_type",
            {"bytes_out"},
        ),
    ],
)
def test_an_error_is_told_by_its_code(ask: Ask, status: int, code: str, also: set[str]) -> None:
    line = line_of(ask)

    assert line.keys() == ALWAYS | {"code"} | also
    assert (line["status"], line["code"]) == (status, code)


def test_a_late_request_tells_where_it_waited() -> None:
    embedder = FakeEmbedder()
    with capture_logs() as lines, run_service(Settings(), embedder) as service:
        post_images(service.client, "raw", [PNG])  # decodes from now on without a start
        embedder.gate.clear()
        patience = {"X-Request-Timeout-Ms": "1000"}
        late = post_images(service.client, "raw", [PNG], headers=patience)
        embedder.gate.set()
    line = [line for line in lines if line["event"] == "request"][-1]

    assert late.status_code == line["status"] == 504
    assert line.keys() == ALWAYS | (OF_IMAGES - {"serialize_ms"}) | {"code"}
    assert line["code"] == "deadline_exceeded"


def test_a_client_that_is_cut_off_leaves_a_line_with_the_reason() -> None:
    def stall(service: ServiceServer) -> None:
        with connect(service.port) as (client,):
            client.send(head("Content-Type: image/png", "Content-Length: 100"))
            assert client.read_answer().status_code == 408

    line = line_of(stall, body_timeout_s=0.1)

    assert line["code"] == "request_timeout"


def test_what_is_no_answer_with_vectors_tells_no_more_than_it_has() -> None:
    line = line_of(lambda service: service.client.get("/v1/models"))

    assert line.keys() == ALWAYS | {"bytes_out"}


@pytest.fixture(scope="module")
def marked() -> list[MutableMapping[str, Any]]:
    """What is logged of requests that are full of a marker."""

    def ask(service: ServiceServer) -> None:
        headers = {"User-Agent": MARK, "X-Mark": MARK, "Authorization": f"Bearer {MARK}"}
        client = service.client
        client.headers.update(headers)
        files = {"images": (f"{MARK}.png", PNG, f"image/{MARK}")}
        client.post("/embed", files=files, data={"id": MARK})
        client.post("/embed", params={MARK: MARK}, content=MARK.encode())
        client.post("/embed/text", params={"normalize": MARK}, json={"texts": [MARK]})
        client.post("/embed/text", json={"texts": [{"text": MARK, "id": MARK}]})
        client.post("/classify", json={"images": [MARK], "labels": [MARK]})
        client.request(MARK, f"/{MARK}", params={"q": MARK})

    return log_of(ask)


def test_nothing_of_the_input_is_in_any_line(marked: list[MutableMapping[str, Any]]) -> None:
    lines = [line for line in marked if line["event"] == "request"]

    assert len(lines) == 6
    assert MARK not in str(marked)
