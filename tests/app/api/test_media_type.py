"""Bodies under the names that clients give them, by choice or because their library does."""

import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.app.answers import check_error, embeddings
from tests.app.fake_embedder import expected_pooled
from tests.app.images import encode, plain_png, scene
from tests.app.service_server import ServiceServer

COLOUR = (10, 20, 30)
PNG = plain_png(COLOUR)
ENCODED_FORM = "application/x-www-form-urlencoded"


def send(server: ServiceServer, body: bytes, content_type: str | None) -> httpx.Response:
    """POST a body as it is; httpx adds no type of its own."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    return server.client.post("/embed?normalize=false", content=body, headers=headers)


@pytest.mark.parametrize(
    "content_type",
    [
        None,  # requests, httpx, Go, Rust, Node, fetch with a buffer
        "",
        ENCODED_FORM,  # curl, wget, axios, Java's and .NET's and Ruby's oldest clients
        f"{ENCODED_FORM}; charset=utf-8",
        "Application/X-WWW-Form-URLencoded",
        "application/octet-stream",
        "binary/octet-stream",  # S3
        "BINARY/OCTET-STREAM",
        "application/x-binary",
        "application/binary",
        "application/unknown",
        "application/force-download",
        "image/jpg",
        "image/*",
        "image",
        "jpeg",
        "*/*",
        "text/plain; charset=UTF-8",  # of servers that know no better, passed on
    ],
)
def test_an_image_is_taken_under_any_name_that_promises_nothing_else(
    server: ServiceServer, content_type: str | None
) -> None:
    answer = send(server, PNG, content_type)

    assert embeddings(answer).tolist() == [expected_pooled(COLOUR)]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_every_format_is_taken_without_a_name(server: ServiceServer, kind: str) -> None:
    for content_type in (None, ENCODED_FORM):
        answer = send(server, encode(scene(0), kind), content_type)

        assert answer.json()["data"][0]["image"]["format"] == kind


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_an_image_that_curl_has_stripped_is_told_how_to_be_sent(
    server: ServiceServer, kind: str
) -> None:
    """`curl -d @file` leaves out zero bytes and line ends; some still begin as an image does."""
    stripped = encode(scene(0), kind).translate(None, b"\0\r\n")

    error = check_error(send(server, stripped, ENCODED_FORM), 415, "unsupported_media_type")
    assert "--data-binary" in error["message"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize(("option", "status"), [("--data-binary", 200), ("-d", 415), ("-T", 200)])
def test_curl_itself(server: ServiceServer, tmp_path: Path, option: str, status: int) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    name = str(path) if option == "-T" else f"@{path}"

    found = subprocess.run(  # a fixed command
        ["curl", "-s", "-X", "POST", "-w", "%{http_code}", option, name, f"{server.url}/embed"],
        capture_output=True,
        check=True,
        timeout=30,
    )

    assert found.stdout.decode().endswith(str(status))


@pytest.mark.parametrize(
    ("body", "content_type", "word"),
    [
        (b'{"images": ["AAAA"]}', None, "Content-Type: application/json"),
        (b'\n {"images": ["AAAA"]}', ENCODED_FORM, "Content-Type: application/json"),
        (b'{"images": ["AAAA"]}', "text/plain;charset=UTF-8", "Content-Type: application/json"),
        (b'["AAAA"]', "text/plain", "Content-Type: application/json"),
        (b"--b\r\nContent-Disposition: form-data", None, "multipart/form-data"),
        (b"--b\r\nContent-Disposition: form-data", "multipart/mixed; boundary=b", "form-data"),
        (b"data:image/png;base64,AAAA", "text/plain", "a data URI goes into JSON"),
        (b"DATA:image/png;base64,AAAA", None, "a data URI goes into JSON"),
        (b"images=AAAA&output=both", ENCODED_FORM, "a form with -F"),
        (b"images=AAAA", "text/plain", "say which in Content-Type"),
        (b"%PDF-1.7", "application/pdf", "say which in Content-Type"),
        (b"\x00\x01", "video/mp4", "say which in Content-Type"),
    ],
)
def test_what_cannot_be_an_image_is_told_what_would_do(
    server: ServiceServer, body: bytes, content_type: str | None, word: str
) -> None:
    error = check_error(send(server, body, content_type), 415, "unsupported_media_type")

    assert word in error["message"]


@pytest.mark.parametrize("content_type", [None, "image/png", "binary/octet-stream"])
def test_a_body_that_may_be_an_image_is_refused_by_its_bytes(
    server: ServiceServer, content_type: str | None
) -> None:
    answer = send(server, b"%PDF-1.7", content_type)

    error = check_error(answer, 415, "unsupported_image_format", "images[0]")
    assert "PDF" in error["message"]


@pytest.mark.parametrize("content_type", [None, ENCODED_FORM, "text/plain"])
def test_a_request_without_body_holds_no_image(
    server: ServiceServer, content_type: str | None
) -> None:
    check_error(send(server, b"", content_type), 400, "no_images")


@pytest.mark.parametrize(
    "content_type", ["application/json;charset=UTF-8", "text/json", "application/vnd.api+json"]
)
def test_json_is_read_under_any_of_its_names(server: ServiceServer, content_type: str) -> None:
    check_error(send(server, b'{"images": []}', content_type), 400, "no_images", "images")
    check_error(send(server, b"{", content_type), 400, "invalid_json")
