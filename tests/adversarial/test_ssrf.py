"""URL input over HTTP: what a stranger can make the service connect to, and learn from it."""

import gzip
import http.client
import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx
import pytest

from app.intake import fetch
from app.intake.fetch import Fetcher
from app.settings import Settings
from tests.adversarial.origins import PUBLIC, Internet, Names, Origin, answer, redirect, run_origin
from tests.app.answers import check_error, embeddings
from tests.app.fake_embedder import FakeEmbedder, expected_pooled
from tests.app.images import plain_png
from tests.app.service_server import ServiceServer, run_service

COLOUR = (10, 20, 30)
PNG = plain_png(COLOUR)
MAX_BYTES = 100_000
_WAIT_S = 10

# Names that lead to addresses which must not be dialled.
NAMES_OF_PRIVATE_HOSTS = {
    "localhost": ["127.0.0.1", "::1"],
    "localhost.localdomain": ["127.0.0.1"],
    "127.0.0.1.nip.example": ["127.0.0.1"],
    "metadata.google.internal": ["169.254.169.254"],
    "metadata": ["169.254.169.254"],
    "instance-data.ec2.internal": ["169.254.169.254"],
    "metadata.v6.internal": ["fd00:ec2::254"],
    "metadata.oracle.internal": ["192.0.0.192"],
    "metadata.alibaba.internal": ["100.100.100.200"],
    "wireserver.azure.internal": ["168.63.129.16"],
    "kubernetes.default.svc": ["10.96.0.1"],
    "router.lan": ["192.168.1.1"],
    "docker.internal": ["172.17.0.1"],
    "any.example": ["0.0.0.0"],  # noqa: S104 # an address to refuse
    "any6.example": ["::"],
    "broadcast.example": ["255.255.255.255"],
    "multicast.example": ["224.0.0.1"],
    "multicast6.example": ["ff0e::1"],
    "relay.example": ["192.88.99.1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "compatible.example": ["::127.0.0.1"],
    "sixtofour.example": ["2002:7f00:1::"],
    "nat64.example": ["64:ff9b::7f00:1"],
    "localnat64.example": ["64:ff9b:1::7f00:1"],
    "teredo.example": ["2001:0:4136:e378:8000:63bf:80ff:fffe"],
    "isatap.example": ["2606:4700::5efe:7f00:1"],
    "linklocal.example": ["fe80::1"],
    "linklocalzone.example": ["fe80::1%eth0"],
    "unique.example": ["fc00::1"],
    "site.example": ["fec0::1"],
    "documentation.example": ["2001:db8::1"],
    "documentation2.example": ["3fff::1"],
    "segments.example": ["5f00::1"],
    "mixed.example": [PUBLIC, "10.0.0.1"],
    "mixedback.example": ["10.0.0.1", PUBLIC],
    "mixed6.example": [PUBLIC, "::1"],
    "empty.example": [],
}
# Spellings that a resolver reads, whatever they look like.
SPELLINGS_OF_PRIVATE_HOSTS = [
    "http://127.0.0.1/",
    "http://127.0.0.1:80/",
    "http://127.0.0.1:443/",
    "https://127.0.0.1/",
    "http://127.0.0.1./",
    "http://127.1/",
    "http://127.0.1/",
    "http://127.000.000.001/",
    "http://0177.0.0.1/",
    "http://0x7f.0.0.1/",
    "http://0x7f.1/",
    "http://0X7F.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://017700000001/",
    "http://2852039166/latest/meta-data/",
    "http://0xa9fea9fe/latest/meta-data/",
    "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
    "http://0xa9.0xfe.0xa9.0xfe/",
    "http://0/",
    "http://0.0.0.0/",
    "http://10.0.0.1/",
    "http://192.168.0.1/",
    "http://172.16.0.1/",
    "http://[::1]/",
    "http://[::]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::127.0.0.1]/",
    "http://[2002:7f00:1::]/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://[fe80::1]/",
]
# What is no plain http URL, or what two programs might read as two hosts.
MALFORMED = [
    "http://[fe80::1%25lo]/",
    "http://[fe80::1%lo]/",
    "http://①②⑦.⓪.⓪.①/",
    "http://127。0。0。1/",
    "http://ⓛocalhost/",
    "http://user@127.0.0.1/",
    "http://public.example@127.0.0.1/",
    "http://127.0.0.1@public.example/",
    "http://user:password@public.example/",
    "http://public.example:80@127.0.0.1/",
    "http://127.0.0.1\\@public.example/",
    "http://public.example\\@127.0.0.1/",
    "http://public.example#@127.0.0.1:22/\\",
    "http://public.example:22/",
    "http://public.example:6379/",
    "http://public.example:0/",
    "http://public.example:65616/",
    "http://public.example:+80/",
    "http://public.example /",
    "http://public.example/\r\nX-Header: 1",
    "http://public.example/\n",
    "http://public.example/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "http://public%2eexample/",
    "http://public.example%00.internal/",
    "http://public.example\x00.internal/",
    "http:///127.0.0.1/",
    "http://",
    "https://[",
    " http://public.example/",
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "gopher://public.example/_GET",
    "ftp://public.example/a.png",
    "dict://public.example/",
    "data:image/png;base64,AAAA",
    "jar:http://public.example!/",
    "//public.example/",
    "public.example",
    "",
    "http://" + "a." * 130 + "example/",
    "http://public.example/" + "a" * 10_000,
]
FORBIDDEN = [
    *(f"http://{name}/" for name in NAMES_OF_PRIVATE_HOSTS),
    *SPELLINGS_OF_PRIVATE_HOSTS,
    *MALFORMED,
    "http://unknown.example/",
]
# Of these, what a header can hold and is no relative reference.
FORBIDDEN_LOCATIONS = [
    url for url in FORBIDDEN if url.isascii() and re.fullmatch(r"[a-zA-Z]+:[ -~]*", url)
]


class World(NamedTuple):
    """A service that fetches from the internet of this test."""

    service: ServiceServer
    origin: Origin
    internet: Internet
    names: Names


@contextmanager
def run_world(settings: Settings, embedder: FakeEmbedder | None = None) -> Iterator[World]:
    """Run a service and an origin, at which everything ends that the service dials."""
    with run_origin() as origin:
        origin.answers["/"] = answer(PNG)
        internet, names = Internet(origin.port), Names()
        names.table["public.example"] = [[PUBLIC]]
        names.table |= {name: [found] for name, found in NAMES_OF_PRIVATE_HOSTS.items()}
        fetcher = Fetcher(
            settings.max_image_bytes, settings.url_allowed_hosts, lookup=names, network=internet
        )
        with run_service(settings, embedder or FakeEmbedder(), fetcher) as service:
            yield World(service, origin, internet, names)


@pytest.fixture(scope="module")
def shared_world() -> Iterator[World]:
    with run_world(Settings(url_input=True, max_image_bytes=MAX_BYTES)) as running:
        yield running


@pytest.fixture
def online(shared_world: World) -> World:
    """The shared world, as new."""
    shared_world.origin.answers.clear()
    shared_world.origin.answers["/"] = answer(PNG)
    shared_world.origin.heads.clear()
    shared_world.internet.dialled.clear()
    shared_world.internet.peers.clear()
    shared_world.internet.bytes_read = 0
    shared_world.names.table["public.example"] = [[PUBLIC]]
    return shared_world


def ask(world: World, *urls: str, **options: Any) -> httpx.Response:
    """Ask for the images at some URLs."""
    content = {"images": [{"url": url} for url in urls], "normalize": False, **options}
    return world.service.client.post("/embed", json=content)


def without_id(refused: httpx.Response) -> bytes:
    """Return an error's body but for the id of its request."""
    return refused.content.replace(refused.headers["x-request-id"].encode(), b"")


def forbidden_body(world: World) -> bytes:
    """Return what every forbidden URL is answered with."""
    refused = ask(world, "http://127.0.0.1/")
    check_error(refused, 422, "url_forbidden", "images[0]")
    return without_id(refused)


def test_there_are_enough_spellings() -> None:
    assert len(set(FORBIDDEN)) >= 100


def test_an_image_at_a_url_is_embedded_like_an_uploaded_one(online: World) -> None:
    found = ask(online, "https://public.example/")

    assert embeddings(found).tolist() == [expected_pooled(COLOUR)]
    assert found.json()["data"][0]["image"] == {"width": 8, "height": 6, "format": "PNG"}
    assert online.internet.dialled == [(PUBLIC, 443)]


@pytest.mark.parametrize("url", ["http://public.example/", "HTTPS://PUBLIC.EXAMPLE/"])
def test_a_bare_string_may_be_a_url(online: World, url: str) -> None:
    found = online.service.client.post("/embed", json={"images": [url], "normalize": False})

    assert embeddings(found).tolist() == [expected_pooled(COLOUR)]


@pytest.mark.parametrize("url", FORBIDDEN)
def test_a_forbidden_url_is_answered_like_every_other_and_never_dialled(
    online: World, url: str
) -> None:
    refused = ask(online, url)

    assert refused.status_code == 422
    assert without_id(refused) == forbidden_body(online)
    assert online.internet.dialled == []
    assert online.origin.heads == []


@pytest.mark.parametrize("url", FORBIDDEN_LOCATIONS)
def test_no_redirect_leads_to_a_forbidden_url(online: World, url: str) -> None:
    online.origin.answers["/hop"] = redirect(url)

    refused = ask(online, "http://public.example/hop")

    assert refused.status_code == 422
    assert without_id(refused) == forbidden_body(online)
    assert online.internet.dialled == [(PUBLIC, 80)]


def test_no_redirect_gives_up_encryption(online: World) -> None:
    online.origin.answers["/hop"] = redirect("http://public.example/")

    refused = ask(online, "https://public.example/hop")

    assert without_id(refused) == forbidden_body(online)
    assert online.internet.dialled == [(PUBLIC, 443)]


def test_every_hop_of_a_chain_is_checked(online: World) -> None:
    online.origin.answers["/1"] = redirect("/2")
    online.origin.answers["/2"] = redirect("https://public.example/3")
    online.origin.answers["/3"] = redirect("//metadata.google.internal/")

    refused = ask(online, "http://public.example/1")

    assert without_id(refused) == forbidden_body(online)
    assert online.internet.dialled == [(PUBLIC, 80), (PUBLIC, 80), (PUBLIC, 443)]


def test_a_name_that_is_bound_anew_is_checked_anew(online: World) -> None:
    online.names.table["public.example"] = [[PUBLIC], ["127.0.0.1"], [PUBLIC]]
    online.origin.answers["/hop"] = redirect("/")

    refused = ask(online, "http://public.example/hop")

    assert without_id(refused) == forbidden_body(online)
    assert online.internet.dialled == [(PUBLIC, 80)]


def test_a_name_that_is_bound_anew_after_its_check_is_not_asked_again(online: World) -> None:
    online.names.table["public.example"] = [[PUBLIC], ["127.0.0.1"]]

    assert ask(online, "http://public.example/").status_code == 200
    assert online.internet.dialled == [(PUBLIC, 80)]


def test_a_connection_that_ends_inside_is_forbidden_too(online: World) -> None:
    online.internet.peers[PUBLIC] = "127.0.0.1"

    refused = ask(online, "http://public.example/")

    assert without_id(refused) == forbidden_body(online)
    assert online.origin.heads == []


def test_a_host_outside_of_the_list_is_forbidden_alike(online: World) -> None:
    settings = Settings(
        url_input=True, url_allowed_hosts=frozenset({"images.example", "*.cdn.example"})
    )
    with run_world(settings) as listed:
        for name in ("images.example", "a.cdn.example", "cdn.example", "evil-images.example"):
            listed.names.table[name] = [[PUBLIC]]
        listed.origin.answers["/hop"] = redirect("http://public.example/")

        assert ask(listed, "http://images.example/").status_code == 200
        assert ask(listed, "http://a.cdn.example/").status_code == 200
        for url in (
            "http://public.example/",
            "http://cdn.example/",
            "http://evil-images.example/",
            "http://images.example/hop",
        ):
            refused = ask(listed, url)
            assert without_id(refused) == forbidden_body(online), url


def test_a_listed_host_must_be_public_too() -> None:
    settings = Settings(url_input=True, url_allowed_hosts=frozenset({"router.lan"}))
    with run_world(settings) as listed:
        check_error(ask(listed, "http://router.lan/"), 422, "url_forbidden", "images[0]")
        assert listed.internet.dialled == []


def test_the_bytes_decide_and_not_the_content_type(online: World) -> None:
    online.origin.answers["/"] = answer(PNG, "Content-Type: text/html")
    online.origin.answers["/page"] = answer(b"<html>secret</html>", "Content-Type: image/png")

    assert ask(online, "http://public.example/").status_code == 200
    refused = ask(online, "http://public.example/page")
    check_error(refused, 415, "unsupported_image_format", "images[0]")
    assert "secret" not in refused.text


def test_nothing_is_decompressed(online: World) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    assert len(bomb) < MAX_BYTES
    online.origin.answers["/"] = answer(bomb, "Content-Encoding: gzip")

    refused = ask(online, "http://public.example/")

    check_error(refused, 415, "unsupported_image_format", "images[0]")
    assert b"\r\nAccept-Encoding: identity\r\n" in online.origin.heads[0]


def test_too_many_bytes_are_not_read_to_the_end(online: World) -> None:
    online.origin.answers["/"] = answer(bytes(50 * MAX_BYTES))

    check_error(ask(online, "http://public.example/"), 413, "image_too_large", "images[0]")
    assert online.internet.bytes_read <= MAX_BYTES + 2**16


def test_endless_redirects_end(online: World) -> None:
    online.origin.answers["/loop"] = redirect("/loop")

    check_error(ask(online, "http://public.example/loop"), 422, "url_fetch_failed", "images[0]")
    assert len(online.origin.heads) == 4


@pytest.mark.parametrize(
    "bad",
    [
        answer(PNG, length=len(PNG) + 1),
        answer(b"secret", status="500 secret"),
        answer(b"secret", status="404 secret"),
        lambda connection: connection.sendall(b"secret\r\n\r\n"),
        lambda connection: connection.close(),
    ],
    ids=["midway", "failed", "missing", "no_http", "closed"],
)
def test_a_host_that_gives_no_image_is_not_quoted(online: World, bad: Any) -> None:
    online.origin.answers["/"] = bad

    refused = ask(online, "http://public.example/")

    check_error(refused, 422, "url_fetch_failed", "images[0]")
    assert "secret" not in refused.text
    assert "example" not in refused.text


def test_a_slow_host_costs_its_time_and_no_more(
    online: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_TOTAL_S", 0.3)
    online.origin.answers["/"] = online.origin.hang

    start = time.monotonic()
    check_error(ask(online, "http://public.example/"), 422, "url_fetch_failed", "images[0]")
    assert time.monotonic() - start < 15, "the host hangs for 30 s"
    assert online.origin.left.acquire(timeout=_WAIT_S), "the connection stayed open"


def test_the_deadline_of_a_request_ends_its_fetches(online: World) -> None:
    online.origin.answers["/"] = online.origin.hang

    refused = online.service.client.post(
        "/embed",
        json={"images": [{"url": "http://public.example/"}]},
        headers={"X-Request-Timeout-Ms": "200"},
    )

    check_error(refused, 504, "deadline_exceeded")
    assert online.origin.left.acquire(timeout=_WAIT_S), "the connection stayed open"
    wait_until_idle(online)


def test_a_client_that_leaves_takes_its_fetches_along(online: World) -> None:
    asked = threading.Event()

    def hang(connection: Any) -> None:
        asked.set()
        online.origin.hang(connection)

    online.origin.answers["/"] = hang
    client = http.client.HTTPConnection("127.0.0.1", online.service.port)
    body = json.dumps({"images": [{"url": "http://public.example/"}]})
    client.request("POST", "/embed", body, {"Content-Type": "application/json"})
    assert asked.wait(_WAIT_S)
    client.close()

    assert online.origin.left.acquire(timeout=4), "the fetch went on"
    wait_until_idle(online)


def wait_until_idle(world: World) -> None:
    """Wait until no image has a permit any more."""
    give_up_at = time.monotonic() + _WAIT_S
    while world.service.client.get("/healthz").json()["queue"]["images"]:
        assert time.monotonic() < give_up_at, "a permit was not given back"
        time.sleep(0.01)


def test_each_bad_url_fails_alone_in_a_partial_answer(online: World) -> None:
    online.origin.answers["/missing"] = answer(b"", status="404 Not Found")
    urls = [
        "http://127.0.0.1/",
        "http://public.example/",
        "http://public.example/missing",
        "http://[",
    ]

    found = ask(online, *urls, on_error="partial")

    assert found.status_code == 200
    items = found.json()["data"]
    assert items[1]["embedding"] == expected_pooled(COLOUR)
    codes = [item.get("error", {}).get("code") for item in items]
    assert codes == ["url_forbidden", None, "url_fetch_failed", "url_forbidden"]
    assert found.json()["usage"] == {"images": 4, "failed": 3}


def test_more_than_four_urls_are_refused_before_any_is_fetched(online: World) -> None:
    assert ask(online, *["http://public.example/"] * 4).status_code == 200
    online.origin.heads.clear()

    refused = ask(online, *["http://public.example/"] * 5)

    check_error(refused, 413, "too_many_images", None)
    assert online.origin.heads == []


def test_a_full_service_fetches_nothing() -> None:
    fake = FakeEmbedder()
    fake.gate.clear()
    settings = Settings(url_input=True, queue_images=1, max_images=1)
    with run_world(settings, fake) as full, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, full, "http://public.example/")
        fake.wait_until_entered()
        refused = ask(full, "http://public.example/")
        fake.gate.set()
        assert waiting.result().status_code == 200

        check_error(refused, 429, "queue_full")
        assert len(full.origin.heads) == 1


def test_a_fetch_beyond_the_few_at_a_time_waits_until_its_deadline() -> None:
    settings = Settings(url_input=True, queue_images=100, request_timeout_s=3)
    with run_world(settings) as busy, ThreadPoolExecutor(8) as pool:
        arrived = threading.Semaphore(0)

        def hang(connection: Any) -> None:
            arrived.release()
            busy.origin.hang(connection)

        busy.origin.answers["/slow"] = hang
        urls = ["http://public.example/slow"] * 4
        waiting = [pool.submit(ask, busy, *urls) for _ in range(8)]
        for _ in range(32):
            assert arrived.acquire(timeout=_WAIT_S)
        content = {"images": ["http://public.example/"]}
        late = busy.service.client.post(
            "/embed", json=content, headers={"X-Request-Timeout-Ms": "300"}
        )

        check_error(late, 504, "deadline_exceeded")
        assert len(busy.origin.heads) == 32
        for each in waiting:
            check_error(each.result(), 504, "deadline_exceeded")
        wait_until_idle(busy)


@pytest.mark.parametrize("item", [{"url": "http://public.example/"}, "http://public.example/"])
def test_without_url_input_nothing_is_fetched(item: Any) -> None:
    with run_service(Settings(), FakeEmbedder()) as service:
        refused = service.client.post("/embed", json={"images": [item]})

    check_error(refused, 403, "url_input_disabled", "images[0].url")


def test_url_input_is_one_setting_away() -> None:
    """With the fetcher that the service makes for itself: nothing public is within reach here."""
    with run_service(Settings(url_input=True), FakeEmbedder()) as service:
        refused = service.client.post("/embed", json={"images": [{"url": "http://127.0.0.1/"}]})

    check_error(refused, 422, "url_forbidden", "images[0]")
