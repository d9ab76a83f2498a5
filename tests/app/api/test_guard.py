"""The outermost layer, over a real socket: request ids, body cap, last resort."""

import re

import pytest

from app.settings import Settings
from tests.app.answers import check_error, post_images
from tests.app.fake_embedder import FakeEmbedder
from tests.app.images import NO_IMAGE, plain_png
from tests.app.service_server import ServiceServer, run_service

PNG = plain_png((10, 20, 30))
MAX_BODY_BYTES = 100_000


@pytest.mark.parametrize("given", ["a", "01J-abc_9.Z", "x" * 64])
def test_a_harmless_request_id_comes_back(server: ServiceServer, given: str) -> None:
    headers = {"X-Request-ID": given}
    fine = post_images(server.client, "raw", [PNG], headers=headers)
    failed = post_images(server.client, "raw", [NO_IMAGE], headers=headers)

    assert fine.headers["x-request-id"] == given
    assert failed.headers["x-request-id"] == given
    assert failed.json()["error"]["request_id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a/b", "<script>", "a\tb", "\xe9", "a,b"])
def test_any_other_request_id_is_replaced(server: ServiceServer, given: str) -> None:
    answer = server.client.get("/livez", headers=[(b"X-Request-ID", given.encode("latin-1"))])

    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


def test_every_request_gets_an_id_of_its_own(server: ServiceServer) -> None:
    ids = {server.client.get("/livez").headers["x-request-id"] for _ in range(20)}

    assert len(ids) == 20


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz", "/docs", "/openapi.json", "/no"])
def test_every_answer_forbids_sniffing(server: ServiceServer, path: str) -> None:
    assert server.client.get(path).headers["x-content-type-options"] == "nosniff"


def test_no_answer_names_the_server_software(server: ServiceServer) -> None:
    assert "server" not in server.client.get("/healthz").headers


@pytest.mark.parametrize(
    "codings", [["gzip"], ["identity", "gzip"], ["identity, br"], ["zstd,"], ["GZIP"]]
)
def test_a_compressed_body_is_refused(server: ServiceServer, codings: list[str]) -> None:
    headers = [("Content-Type", "image/png"), *(("Content-Encoding", one) for one in codings)]
    answer = server.client.post("/embed", content=PNG, headers=headers)

    check_error(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("coding", ["identity", "Identity", "", "identity, identity"])
def test_a_body_that_says_it_is_not_compressed_is_read(server: ServiceServer, coding: str) -> None:
    answer = post_images(server.client, "raw", [PNG], headers={"Content-Encoding": coding})

    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/embed/x", "/admin", "/..%2f..%2fetc/passwd", "/docs/x"])
def test_an_unknown_path_is_404_in_the_one_shape(server: ServiceServer, path: str) -> None:
    error = check_error(server.client.get(path), 404, "not_found")

    assert "POST /embed" in error["message"]


@pytest.mark.parametrize("path", ["/static-offline-docs/none.js", "/static-offline-docs/../x"])
def test_a_missing_static_file_is_404_in_the_one_shape(server: ServiceServer, path: str) -> None:
    check_error(server.client.get(path), 404, "not_found")


@pytest.mark.parametrize("ranges", ["bytes=abc", "x", "bytes=999999999-"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_range_of_a_static_file_that_cannot_be_is_refused_in_the_one_shape(
    server: ServiceServer, method: str, ranges: str
) -> None:
    """Starlette answers those in text."""
    path = "/static-offline-docs/swagger-ui.css"
    answer = server.client.request(method, path, headers={"Range": ranges})

    assert answer.headers["content-type"] == "application/json"
    assert answer.status_code == 400
    if method == "GET":
        check_error(answer, 400, "invalid_parameter")


ODD_PATHS = ["//", "/%2f", "/%00", "/docs/", "/v1/models/%00", "http://", "*", "livez", "/%zz"]
OPEN_PATHS = ["/docs", "/redoc", "/openapi.json", "/static-offline-docs", "/docs/oauth2-redirect"]


@pytest.mark.parametrize("path", [*ODD_PATHS, *OPEN_PATHS, "/static-offline-docs/%00"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "TRACE", "CONNECT", "get", "ODD"])
def test_whatever_is_asked_for_an_error_has_the_one_shape(
    server: ServiceServer, method: str, path: str
) -> None:
    answer = server.ask_raw(f"{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())

    if answer.status_code != 200 or method != "GET":
        codes = {404: "not_found", 405: "method_not_allowed"}
        if (method, path) == ("GET", "/v1/models/%00"):
            check_error(answer, 404, "model_not_found", "model")
        else:
            check_error(answer, answer.status_code, codes[answer.status_code])


@pytest.mark.parametrize("authority", ["http://a", "HTTP://a:1", "https://[::1]:8000"])
@pytest.mark.parametrize("path", ["/livez", "/livez?a=b"])
def test_an_absolute_target_is_its_path(server: ServiceServer, authority: str, path: str) -> None:
    got = server.ask_raw(f"GET {authority}{path} HTTP/1.1\r\nHost: b\r\n\r\n".encode())
    posted = server.ask_raw(
        f"POST {authority}/embed?id=a HTTP/1.1\r\nHost: b\r\nContent-Type: image/png\r\n"
        f"Content-Length: {len(PNG)}\r\n\r\n".encode()
        + PNG
    )

    assert got.status_code == 200
    assert [item["id"] for item in posted.json()["data"]] == ["a"]


@pytest.mark.parametrize("target", ["http://a", "http://a?b", "http://a/"])
def test_an_absolute_target_without_path_is_the_root(server: ServiceServer, target: str) -> None:
    answer = server.ask_raw(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())

    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")


def test_an_absolute_target_with_a_user_is_not_found(server: ServiceServer) -> None:
    answer = server.ask_raw(b"GET http://u@a/livez HTTP/1.1\r\nHost: a\r\n\r\n")

    check_error(answer, 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/embed", "POST"),
        ("PUT", "/embed", "POST"),
        ("POST", "/healthz", "GET"),
        ("DELETE", "/livez", "GET"),
        ("ODD", "/embed", "POST"),
    ],
)
def test_a_wrong_method_is_405_in_the_one_shape(
    server: ServiceServer, method: str, path: str, allowed: str
) -> None:
    answer = server.client.request(method, path)

    check_error(answer, 405, "method_not_allowed")
    assert allowed in answer.headers["allow"]


def test_a_declared_body_over_the_limit_is_refused_unread(server: ServiceServer) -> None:
    """The answer comes although not one byte of the body was sent."""
    answer = server.ask_raw(
        b"POST /embed HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
        + f"Content-Length: {MAX_BODY_BYTES + 1}\r\n\r\n".encode()
    )

    check_error(answer, 413, "body_too_large")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("content_type", ["image/png", "application/json", "multipart/form-data"])
def test_a_chunked_body_over_the_limit_is_refused_while_it_comes(
    server: ServiceServer, content_type: str
) -> None:
    """The answer comes although the body has no end."""
    start = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
    chunk = start + bytes(MAX_BODY_BYTES)

    answer = server.ask_raw(
        b"POST /embed HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
        + f"Content-Type: {content_type}; boundary=b\r\n\r\n".encode()
        + f"{len(chunk):x}\r\n".encode()
        + chunk
        + b"\r\n"
    )

    check_error(answer, 413, "body_too_large")
    assert answer.headers["connection"] == "close"


def test_a_body_just_at_the_limit_is_read(server: ServiceServer) -> None:
    at_limit = post_images(server.client, "raw", [bytes(MAX_BODY_BYTES)])
    over_limit = post_images(server.client, "raw", [bytes(MAX_BODY_BYTES + 1)])

    check_error(at_limit, 413, "image_too_large", "images[0]")
    error = check_error(over_limit, 413, "body_too_large")
    assert f"{MAX_BODY_BYTES} bytes (SIGLIP_MAX_BODY_BYTES)" in error["message"]


def test_a_body_on_a_route_that_reads_none_is_capped_too(server: ServiceServer) -> None:
    answer = server.client.request("GET", "/livez", content=bytes(MAX_BODY_BYTES + 1))

    check_error(answer, 413, "body_too_large")


@pytest.mark.parametrize("length", ["-1", "1e3", "+5", "0x10", "\u00b2", "5, 6"])
def test_a_length_that_is_no_number_is_the_callers_fault(
    server: ServiceServer, length: str
) -> None:
    answer = server.ask_raw(
        b"POST /embed HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nConnection: close\r\n"
        b"Content-Length: " + length.encode("latin-1") + b"\r\n\r\n"
    )

    assert 400 <= answer.status_code < 500


def test_a_fault_of_the_service_is_a_500_without_its_cause() -> None:
    page = "https://page.example"
    with run_service(Settings(cors_origins=frozenset({page})), FakeEmbedder()) as service:
        service.app.state.context = None  # whatever breaks, breaks inside the route
        answer = post_images(service.client, "raw", [PNG], headers={"Origin": page})

    error = check_error(answer, 500, "internal")
    assert error["message"] == "an internal error"
    assert answer.headers["access-control-allow-origin"] == page


def test_a_request_after_a_refused_one_is_answered(server: ServiceServer) -> None:
    post_images(server.client, "raw", [bytes(MAX_BODY_BYTES + 1)])

    assert post_images(server.client, "raw", [PNG]).status_code == 200
