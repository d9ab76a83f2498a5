"""A service with keys, over a real socket: shut on every route but the probes and the docs."""

from collections.abc import Iterable, Iterator
from typing import Any

import httpx
import pytest

from app.api import playground
from app.keys import ApiKeys
from app.settings import Settings
from tests.adversarial.raw_client import connect, head
from tests.app.answers import check_error, post_images
from tests.app.fake_embedder import FakeEmbedder
from tests.app.images import plain_png
from tests.app.service_server import ServiceServer, run_service

PNG = plain_png((10, 20, 30))
PROBES = ["/healthz", "/readyz", "/livez"]
# A browser sends no key for a page, nor for the files of one; they hold nothing of anybody's.
DOCS = ["/docs", "/redoc", "/docs/oauth2-redirect", "/openapi.json"]
STATIC = "/static-offline-docs"
UNKNOWN = [
    *("/no", "/v1/nothing", "/embed/", "/healthz/", "//livez", "/livez/../metrics", "/LIVEZ", "*"),
    *(
        "//",
        "/docs/",
        "//docs",
        "/docs/../metrics",
        "/docs/x",
        "/redoc/",
        "/openapi.json/",
        "/DOCS",
    ),
    *("/playground", "/playground/", "/playground/x", "/playground/../metrics"),
    *(STATIC, f"{STATIC}x", f"/x{STATIC}/favicon.png", "/metrics/../docs", "/metrics?/docs"),
]
KEY = {"Authorization": "Bearer hush-two"}


@pytest.fixture(scope="module")
def locked() -> Iterator[ServiceServer]:
    settings = Settings(
        api_keys=ApiKeys.of(b"hush-one"),
        api_keys_file=ApiKeys.of(b"hush-two"),
        cors_origins=frozenset({"https://page.example"}),
    )
    with run_service(settings, FakeEmbedder()) as service:
        yield service


def check_refused(answer: httpx.Response) -> None:
    check_error(answer, 401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["connection"] == "close"


def all_paths(routes: Iterable[Any]) -> Iterator[str]:
    """Return the path of each route, also of those that FastAPI keeps in their routers."""
    for route in routes:
        if hasattr(route, "original_router"):
            yield from all_paths(route.original_router.routes)
        else:
            yield route.path


def test_every_route_but_the_probes_and_the_pages_is_shut(locked: ServiceServer) -> None:
    paths = set(all_paths(locked.app.routes))
    is_open = {*PROBES, *DOCS, *playground.PATHS}
    assert paths > {"/embed", "/v1/models", "/metrics", *is_open}

    for path in sorted(paths - is_open):
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "ODD"):
            answer = locked.client.request(method, path)
            assert answer.status_code == 401, (method, path)


@pytest.mark.parametrize("path", UNKNOWN)
def test_an_unknown_path_is_shut_too(locked: ServiceServer, path: str) -> None:
    with connect(locked.port) as (client,):
        client.send(head(method="GET", path=path))
        check_refused(client.read_answer())


@pytest.mark.parametrize("path", PROBES)
def test_probes_are_open(locked: ServiceServer, path: str) -> None:
    assert locked.client.get(path).status_code == 200
    assert locked.client.head(path).status_code == 200


@pytest.mark.parametrize("path", [*DOCS, f"{STATIC}/swagger-ui.css", *playground.PATHS])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer hush"}])
def test_pages_are_open(locked: ServiceServer, path: str, headers: dict[str, str]) -> None:
    assert locked.client.get(path, headers=headers).status_code == 200
    check_error(locked.client.post(path, headers=headers), 405, "method_not_allowed")


@pytest.mark.parametrize("path", ["../metrics", "..%2fmetrics", "%2e%2e/metrics", "x", ""])
def test_behind_the_files_of_the_docs_is_nothing(locked: ServiceServer, path: str) -> None:
    answer = locked.ask_raw(f"GET {STATIC}/{path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())

    check_error(answer, 404, "not_found")


@pytest.mark.parametrize("key", ["hush-one", "hush-two"])
@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  "])
def test_each_key_opens_the_service(locked: ServiceServer, key: str, scheme: str) -> None:
    headers = {"Authorization": scheme + key}

    assert post_images(locked.client, "raw", [PNG], headers=headers).status_code == 200
    assert locked.client.get("/metrics", headers=headers).status_code == 200
    check_error(locked.client.get("/no", headers=headers), 404, "not_found")


@pytest.mark.parametrize(
    "given",
    [
        "",
        "Bearer",
        "Bearer hush",
        "Bearer hush-one,hush-two",
        "Bearer hush-one hush-two",
        "Basic hush-one",
        "hush-one",
        "Bearer hush-on\u00e9",
        "Bearer \u00a0hush-one",
        "Bearer hush-one\u0085",
        "Bearer \x1chush-one",
        "Bearer " + "a" * 10_000,
    ],
)
def test_anything_else_does_not(locked: ServiceServer, given: str) -> None:
    headers = [(b"Authorization", given.encode("latin-1"))]
    check_refused(locked.client.get("/v1/models", headers=headers))


@pytest.mark.parametrize("other", ["Bearer hush-one", "Bearer hush-two", "Basic YTpi", ""])
def test_two_keys_are_none(locked: ServiceServer, other: str) -> None:
    """One who looks at the first and one who looks at the last would not see the same."""
    keys = [("Authorization", "Bearer hush-one"), ("Authorization", other)]
    for headers in (keys, keys[::-1]):
        check_refused(locked.client.get("/v1/models", headers=headers))


def test_a_key_in_the_query_does_not_count(locked: ServiceServer) -> None:
    check_refused(
        locked.client.get("/v1/models", params={"key": "hush-one", "api_key": "hush-one"})
    )


def test_a_body_is_refused_unread(locked: ServiceServer) -> None:
    """The answer comes although not one byte of the body was sent."""
    with connect(locked.port) as (client,):
        client.send(head("Content-Length: 1000000"))
        check_refused(client.read_answer())
        assert client.read_to_the_end() == b""


def test_a_refused_upload_hears_why_although_it_sends_on(locked: ServiceServer) -> None:
    with connect(locked.port) as (client,):
        client.send(head("Content-Length: 20000000"))
        client.send(bytes(20_000_000))
        check_refused(client.read_answer())


def test_no_key_no_other_answer(locked: ServiceServer) -> None:
    """Whoever has no key does not learn what else is wrong."""
    with connect(locked.port) as (client,):
        client.send(head("Content-Length: 999999999999"))
        check_refused(client.read_answer())
    check_refused(locked.client.post("/embed", headers={"Content-Encoding": "gzip"}))


def test_keys_are_in_no_answer_and_no_log(
    locked: ServiceServer, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    answers = [
        locked.client.get("/no", headers=KEY),
        locked.client.get("/no", headers={"Authorization": "Bearer hush-wrong"}),
    ]
    with connect(locked.port) as (client,):
        client.send(b"GET / HTTP/1.1\r\nAuthorization: Bearer hush-two\r\n\r\n")  # no Host
        answers.append(client.read_answer())

    assert [answer.status_code for answer in answers] == [404, 401, 400]
    assert not any("hush" in answer.text + str(answer.headers) for answer in answers)
    output = capsys.readouterr()
    assert "request" in output.out
    assert "hush" not in output.out + output.err + caplog.text


def test_a_browser_may_ask_without_a_key_and_read_the_refusal(locked: ServiceServer) -> None:
    origin = {"Origin": "https://page.example"}
    asked = locked.client.options(
        "/embed",
        headers={
            **origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        },
    )
    refused = locked.client.post("/embed", headers=origin)

    assert asked.status_code == 200
    check_refused(refused)
    for answer in (asked, refused):
        assert answer.headers["access-control-allow-origin"] == "https://page.example"


def test_without_keys_all_is_open(server: ServiceServer) -> None:
    assert post_images(server.client, "raw", [PNG]).status_code == 200
    assert post_images(server.client, "raw", [PNG], headers=KEY).status_code == 200
