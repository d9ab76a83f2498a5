"""What browsers are told of other origins, over a real socket."""

from collections.abc import Iterator

import httpx
import pytest

from app.settings import Settings
from tests.app.answers import post_images
from tests.app.fake_embedder import FakeEmbedder
from tests.app.images import NO_IMAGE, plain_png
from tests.app.service_server import ServiceServer, run_service

PNG = plain_png((10, 20, 30))
OURS = {"Origin": "https://page.example"}
THEIRS = {"Origin": "https://evil.example"}
ASKS_TO_POST = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-request-timeout-ms",
}


@pytest.fixture(scope="module")
def sharing() -> Iterator[ServiceServer]:
    settings = Settings(cors_origins=frozenset({"https://page.example"}))
    with run_service(settings, FakeEmbedder()) as service:
        yield service


def allowed(answer: httpx.Response) -> str | None:
    assert "access-control-allow-credentials" not in answer.headers
    return answer.headers.get("access-control-allow-origin")


def test_by_default_no_origin_is_told_anything(server: ServiceServer) -> None:
    for answer in (
        post_images(server.client, "raw", [PNG], headers=OURS),
        server.client.options("/embed", headers=OURS | ASKS_TO_POST),
        server.client.get("/livez", headers=OURS),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_page_of_a_named_origin_may_post_and_read(sharing: ServiceServer) -> None:
    asked = sharing.client.options("/embed", headers=OURS | ASKS_TO_POST)
    fine = post_images(sharing.client, "raw", [PNG], headers=OURS)
    failed = post_images(sharing.client, "raw", [NO_IMAGE], headers=OURS)

    assert [asked.status_code, fine.status_code, failed.status_code] == [200, 200, 415]
    assert {allowed(answer) for answer in (asked, fine, failed)} == {"https://page.example"}
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert "authorization" in asked.headers["access-control-allow-headers"].lower()
    assert fine.headers["vary"] == "Origin"
    readable = set(fine.headers["access-control-expose-headers"].lower().split(", "))
    assert readable >= {"x-request-id", "x-embedding-space", "server-timing", "retry-after"}


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://page.example.evil"])
def test_a_page_of_another_origin_may_not(sharing: ServiceServer, origin: str) -> None:
    headers = {"Origin": origin}
    asked = sharing.client.options("/embed", headers=headers | ASKS_TO_POST)
    posted = post_images(sharing.client, "raw", [PNG], headers=headers)

    assert asked.status_code == 400
    assert allowed(asked) is allowed(posted) is None


def test_every_origin_may_when_so_set_but_never_with_credentials() -> None:
    settings = Settings(cors_origins=frozenset({"*"}))
    with run_service(settings, FakeEmbedder()) as service:
        answers = [
            service.client.options("/embed", headers=THEIRS | ASKS_TO_POST),
            post_images(service.client, "raw", [PNG], headers=THEIRS | {"Cookie": "a=b"}),
        ]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert {allowed(answer) for answer in answers} == {"*"}


def test_leave_has_a_request_id_like_every_answer(sharing: ServiceServer) -> None:
    asked = sharing.client.options("/embed", headers=OURS | ASKS_TO_POST | {"X-Request-ID": "a"})

    assert asked.headers["x-request-id"] == "a"
    assert asked.headers["x-content-type-options"] == "nosniff"


def test_a_refused_preflight_of_an_adapters_path_is_answered() -> None:
    settings = Settings(
        cors_origins=frozenset({"https://page.example"}), adapters=frozenset({"weaviate"})
    )
    with run_service(settings, FakeEmbedder()) as service:
        refused = service.client.options("/vectorize", headers=THEIRS | ASKS_TO_POST)

    assert refused.status_code == 400
    assert allowed(refused) is None
