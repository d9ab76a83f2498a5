"""The fetcher against real sockets: what it asks for, where it dials, when it gives up."""

import asyncio
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import ImageTooLargeError, ServiceError, UrlFetchFailedError, UrlForbiddenError
from app.intake import fetch, network
from app.intake.fetch import Fetcher
from tests.adversarial.origins import (
    PUBLIC,
    PUBLIC_V6,
    Internet,
    Names,
    Origin,
    answer,
    redirect,
    run_origin,
)

BODY = b"an image" * 100
URL = "http://images.example/a.png"


@pytest.fixture
def origin() -> Iterator[Origin]:
    with run_origin() as running:
        running.answers["/a.png"] = answer(BODY)
        yield running


@pytest.fixture
def internet(origin: Origin) -> Internet:
    return Internet(origin.port)


@pytest.fixture
def names() -> Names:
    names = Names()
    names.table["images.example"] = [[PUBLIC]]
    return names


@pytest.fixture
def fetcher(names: Names, internet: Internet) -> Fetcher:
    return Fetcher(1_000, lookup=names, network=internet)


def get(fetcher: Fetcher, url: str = URL) -> bytes:
    """Fetch one URL."""

    async def run() -> bytes:
        async with fetcher.fetch(url) as data:
            return data

    return asyncio.run(run())


def test_the_body_comes_back_as_it_is(fetcher: Fetcher) -> None:
    assert get(fetcher) == BODY


def test_the_request_says_no_more_than_it_must(fetcher: Fetcher, origin: Origin) -> None:
    get(fetcher, "http://Images.Example/a.png#part")

    (head,) = origin.heads
    request_line, *headers = head.decode().strip().split("\r\n")
    assert request_line == "GET /a.png HTTP/1.1"
    assert dict(header.split(": ") for header in headers) == {
        "Host": "images.example",
        "User-Agent": "siglip-embed",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_proxies_of_the_environment_are_not_asked(
    fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:9")

    assert get(fetcher) == BODY


def test_the_address_that_was_checked_is_the_one_dialled(
    fetcher: Fetcher, names: Names, internet: Internet
) -> None:
    """Looked up again, the name would mean another."""
    names.table["images.example"] = [[PUBLIC], ["127.0.0.1"]]

    assert get(fetcher) == BODY
    assert names.asked == ["images.example"]
    assert internet.dialled == [(PUBLIC, 80)]


def test_the_next_address_is_tried_when_one_does_not_answer(
    fetcher: Fetcher, names: Names, internet: Internet
) -> None:
    names.table["images.example"] = [[PUBLIC_V6, PUBLIC]]
    internet.dead.add(PUBLIC_V6)

    assert get(fetcher) == BODY
    assert internet.dialled == [(PUBLIC_V6, 80), (PUBLIC, 80)]


def test_no_more_than_a_few_addresses_are_tried(
    fetcher: Fetcher, names: Names, internet: Internet
) -> None:
    many = [f"8.8.8.{i}" for i in range(50)]
    names.table["images.example"] = [many]
    internet.dead.update(many)

    with pytest.raises(UrlFetchFailedError):
        get(fetcher)
    assert len(internet.dialled) == 8


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.0.0.1", "::1"])
def test_a_connection_that_ends_elsewhere_is_dropped_unused(
    fetcher: Fetcher, internet: Internet, origin: Origin, peer: str
) -> None:
    internet.peers[PUBLIC] = peer

    with pytest.raises(UrlForbiddenError):
        get(fetcher)
    assert origin.heads == []


def test_https_is_encrypted_for_the_name_and_not_for_the_address(
    fetcher: Fetcher, internet: Internet, origin: Origin
) -> None:
    assert get(fetcher, "https://images.example/a.png") == BODY

    assert internet.dialled == [(PUBLIC, 443)]
    assert internet.tls_names == ["images.example"]
    assert b"\r\nHost: images.example\r\n" in origin.heads[0]


def test_up_to_three_redirects_are_followed_without_their_cookies(
    fetcher: Fetcher, origin: Origin
) -> None:
    for step, status in enumerate(("301 Moved", "303 See Other", "308 Permanent")):
        origin.answers[f"/{step}"] = redirect(f"/{step + 1}", status, "Set-Cookie: a=b")
    origin.answers["/3"] = answer(BODY)

    assert get(fetcher, "http://images.example/0") == BODY
    assert len(origin.heads) == 4
    assert not any(b"cookie" in head.lower() for head in origin.heads)


def test_a_fourth_redirect_is_not(fetcher: Fetcher, origin: Origin) -> None:
    origin.answers["/loop"] = redirect("/loop")

    with pytest.raises(UrlFetchFailedError):
        get(fetcher, "http://images.example/loop")
    assert len(origin.heads) == 4


@pytest.mark.parametrize("kind", ["declared", "chunked", "until_closed", "lying"])
def test_bytes_are_counted_as_they_come(
    fetcher: Fetcher, origin: Origin, internet: Internet, kind: str
) -> None:
    """Far more is sent than the 1,000 bytes that are allowed."""
    flood = b"x" * 10_000_000
    origin.answers["/a.png"] = {
        "declared": answer(flood),
        "chunked": lambda connection: connection.sendall(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n989680\r\n" + flood
        ),
        "until_closed": lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + flood),
        "lying": answer(flood, length=9_999_999),
    }[kind]

    with pytest.raises(ImageTooLargeError):
        get(fetcher)
    assert internet.bytes_read <= 1_000 + 2**10 + 2**16  # the limit, and two reads


def test_a_body_just_within_the_limit_is_taken(fetcher: Fetcher, origin: Origin) -> None:
    origin.answers["/a.png"] = answer(b"x" * 1_000)
    assert len(get(fetcher)) == 1_000

    origin.answers["/a.png"] = answer(b"x" * 1_001)
    with pytest.raises(ImageTooLargeError):
        get(fetcher)


def _drip(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(1_000):
        connection.sendall(b"x")
        time.sleep(0.02)


def _endless_head(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-Header: " + b"x" * 1_000 + b"\r\n")


BAD_ANSWERS = {
    "closed_at_once": lambda connection: connection.close(),
    "closed_midway": answer(BODY, length=len(BODY) + 1),
    "closed_in_a_chunk": lambda connection: connection.sendall(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc"
    ),
    "no_http": lambda connection: connection.sendall(b"220 smtp.example ESMTP\r\n"),
    "endless_head": _endless_head,
    "not_found": answer(BODY, status="404 Not Found"),
    "empty": answer(b"", status="204 No Content"),
    "partial": answer(BODY, status="206 Partial Content"),
    "failed": answer(BODY, status="500 Internal Server Error"),
    "switching": answer(b"", status="101 Switching Protocols"),
    "redirect_without_location": answer(b"", status="302 Found"),
}


@pytest.mark.parametrize("kind", BAD_ANSWERS)
def test_an_answer_that_is_none_has_failed(fetcher: Fetcher, origin: Origin, kind: str) -> None:
    origin.answers["/a.png"] = BAD_ANSWERS[kind]

    with pytest.raises(UrlFetchFailedError) as failed:
        get(fetcher)
    assert not any(word in failed.value.message for word in ("ESMTP", "Not Found", "example"))


def _endless_interim_heads(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1_000)


def test_endless_interim_heads_are_cut_off(
    fetcher: Fetcher, origin: Origin, internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_TOTAL_S", 60)
    origin.answers["/a.png"] = _endless_interim_heads

    with pytest.raises(UrlFetchFailedError):
        get(fetcher)
    assert internet.bytes_read <= 2**16


def test_interim_heads_leave_room_for_others(fetcher: Fetcher, origin: Origin) -> None:
    """What httpcore has read it works off in one go, so it must not read much at a time."""
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def run() -> None:
        others = asyncio.create_task(take_turns())
        try:
            async with fetcher.fetch(URL):
                pass
        finally:
            others.cancel()

    origin.answers["/a.png"] = lambda connection: connection.sendall(
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 2_000 + b"HTTP/1.1 404 No\r\n\r\n"
    )
    with pytest.raises(UrlFetchFailedError):
        asyncio.run(run())
    assert turns > 40


def test_a_few_interim_heads_do_no_harm(fetcher: Fetcher, origin: Origin) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"

    def send(connection: socket.socket) -> None:
        connection.sendall(10 * hints)
        answer(BODY, f"X-Long: {'a' * 8_000}")(connection)

    origin.answers["/a.png"] = send

    assert get(fetcher) == BODY


def test_a_flood_of_tiny_chunks_is_cut_off_and_leaves_room_for_others(
    names: Names, internet: Internet
) -> None:
    turns = 0

    async def run() -> None:
        async def take_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        others = asyncio.create_task(take_turns())
        try:
            async with Fetcher(10**6, lookup=names, network=internet).fetch(URL):
                pass
        finally:
            others.cancel()

    chunk = b"1\r\nx\r\n"
    with run_origin() as origin:
        internet.port = origin.port
        origin.answers["/a.png"] = lambda connection: connection.sendall(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 200_000
        )
        with pytest.raises(UrlFetchFailedError, match="pieces"):
            asyncio.run(run())
    assert turns > 200


@pytest.mark.parametrize("kind", ["silent", "dripping"])
def test_a_slow_host_is_given_up_on_time(
    fetcher: Fetcher, origin: Origin, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(fetch, "_TOTAL_S", 0.3)
    origin.answers["/a.png"] = origin.hang if kind == "silent" else _drip

    start = time.monotonic()
    with pytest.raises(UrlFetchFailedError):
        get(fetcher)
    assert 0.25 < time.monotonic() - start < 15, "the host has 20 s and more to say"


def test_a_resolver_that_hangs_is_given_up_on_time(
    internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "_LOOKUP_S", 0.1)

    async def hang(_: str) -> list[str]:
        await asyncio.sleep(60)
        return [PUBLIC]

    start = time.monotonic()
    with pytest.raises(UrlForbiddenError):
        get(Fetcher(1_000, lookup=hang, network=internet))
    assert time.monotonic() - start < 30, "it hangs for a minute"


def test_few_fetches_run_at_a_time(fetcher: Fetcher, origin: Origin) -> None:
    """A slot is taken until the bytes are no longer needed."""

    async def run() -> None:
        release = asyncio.Event()
        held = asyncio.Semaphore(0)

        async def hold() -> None:
            async with fetcher.fetch(URL):
                held.release()
                await release.wait()

        tasks = [asyncio.create_task(hold()) for _ in range(40)]
        for _ in range(32):
            await held.acquire()
        await asyncio.sleep(0.1)
        assert held.locked(), "more than 32 at a time"
        assert len(origin.heads) == 32
        release.set()
        await asyncio.gather(*tasks)

    asyncio.run(run())
    assert len(origin.heads) == 40


def _certificate(folder: Path, name: str) -> Path:
    """Make a self-signed certificate, with its key in the same file."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    file = folder / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    subprocess.run(
        [*command.split(), *subject, "-keyout", "key.pem", "-out", "certificate.pem"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    file.write_bytes(file.read_bytes() + (folder / "key.pem").read_bytes())
    return file


@pytest.mark.parametrize(
    ("name", "trusted", "sound"),
    [
        ("images.example", True, True),
        ("images.example", False, False),
        ("other.example", True, False),
    ],
)
def test_certificates_are_checked(
    names: Names, tmp_path: Path, name: str, trusted: bool, sound: bool
) -> None:
    file = _certificate(tmp_path, name)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(file)
    ours = ssl.create_default_context(cafile=str(file)) if trusted else None
    with run_origin(server_side) as origin:
        origin.answers["/a.png"] = answer(BODY)
        internet = Internet(origin.port, real_tls=True)
        fetcher = Fetcher(1_000, lookup=names, network=internet, tls=ours)
        url = "https://images.example/a.png"
        if sound:
            assert get(fetcher, url) == BODY
        else:
            with pytest.raises(UrlFetchFailedError):
                get(fetcher, url)
            assert origin.heads == []


def test_interim_heads_are_bounded_under_encryption_too(
    names: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_TOTAL_S", 60)
    file = _certificate(tmp_path, "images.example")
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(file)
    with run_origin(server_side) as origin:
        origin.answers["/a.png"] = _endless_interim_heads
        internet = Internet(origin.port, real_tls=True)
        tls = ssl.create_default_context(cafile=str(file))
        with pytest.raises(UrlFetchFailedError):
            get(
                Fetcher(1_000, lookup=names, network=internet, tls=tls),
                "https://images.example/a.png",
            )
        assert internet.bytes_read <= 2**16


def test_nothing_of_a_forbidden_url_is_asked_of_anybody(
    names: Names, internet: Internet, origin: Origin
) -> None:
    fetcher = Fetcher(1_000, frozenset({"*.other.example"}), lookup=names, network=internet)

    for url in (URL, "ftp://images.example/", "http://a@images.example/"):
        with pytest.raises(ServiceError) as refused:
            get(fetcher, url)
        assert isinstance(refused.value, UrlForbiddenError)
    assert names.asked == []
    assert internet.dialled == []
    assert origin.heads == []
