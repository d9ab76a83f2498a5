"""deploy/nginx in front of two real services, with Debian's nginx."""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from app.wire.server import _KEEP_ALIVE_S
from tests.app.images import plain_png
from tests.deploy.supervised import SupervisedService, free_port
from tests.deploy.tools import ROOT, require_tool

CONFIGURATION = (ROOT / "deploy" / "nginx" / "siglip-embed.conf").read_text()
DEFAULTS = {name: field.default for name, field in Settings.model_fields.items()}
_AROUND = """
{user}
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{server}
}}
"""


@pytest.fixture
def services(tmp_path: Path) -> Iterator[list[SupervisedService]]:
    with ExitStack() as stack:
        both = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            both.append(stack.enter_context(closing(SupervisedService(tmp_path / name))))
        for service in both:
            service.start(SIGLIP_DRAIN_DELAY_S="1")
        for service in both:
            service.wait_until_ready()
        yield both


@pytest.fixture
def proxy(services: list[SupervisedService], tmp_path: Path) -> Iterator[httpx.Client]:
    port = free_port()
    server = CONFIGURATION.replace("listen 8000", f"listen 127.0.0.1:{port}")
    for written, service in zip((8001, 8002), services, strict=True):
        server = server.replace(f"127.0.0.1:{written}", f"127.0.0.1:{service.port}")
    user = "user root;" if os.getuid() == 0 else ""  # whose the temporary folder is
    path = tmp_path / "nginx.conf"
    path.write_text(_AROUND.format(folder=tmp_path, server=server, user=user))
    nginx = subprocess.Popen([require_tool("nginx"), "-c", path, "-p", tmp_path])
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60
        ) as client:
            _wait_until_it_listens(client)
            yield client
    finally:
        nginx.terminate()
        nginx.wait(30)


def _wait_until_it_listens(client: httpx.Client) -> None:
    give_up_at = time.monotonic() + 30
    while True:
        with suppress(httpx.TransportError):
            client.get("/livez")
            return
        assert time.monotonic() < give_up_at, "nginx does not answer"
        time.sleep(0.05)


def test_a_rolling_restart_loses_no_request(
    services: list[SupervisedService], proxy: httpx.Client
) -> None:
    over = threading.Event()

    def send(shade: int) -> list[int]:
        statuses = []
        while not over.is_set():
            statuses.append(proxy.post("/embed", content=plain_png((1, 2, shade))).status_code)
            time.sleep(0.01)
        return statuses

    with ThreadPoolExecutor(4) as pool:
        sending = [pool.submit(send, shade) for shade in range(4)]
        try:
            for service in services:
                time.sleep(0.5)
                assert service.stop() == 128 + signal.SIGTERM
                service.start(SIGLIP_DRAIN_DELAY_S="1")
                service.wait_until_ready()
        finally:
            over.set()
    statuses = [status for one in sending for status in one.result()]

    assert len(statuses) > 40
    assert set(statuses) == {200}


def test_what_the_service_takes_and_says_goes_through(proxy: httpx.Client) -> None:
    large = proxy.post("/embed", content=b"x" * (DEFAULTS["max_body_bytes"] - 1000))
    assert large.status_code == 413
    assert large.json()["error"]["code"] == "image_too_large"

    larger = proxy.post("/embed", content=b"x" * (DEFAULTS["max_body_bytes"] + 1))
    assert larger.json()["error"]["code"] == "body_too_large"

    named = proxy.get("/healthz", headers={"X-Request-ID": "mine"})
    assert named.headers["X-Request-ID"] == "mine"
    broken = proxy.post("/embed", content=b"no image")
    assert broken.json()["error"]["code"] == "unsupported_image_format"
    assert re.fullmatch(r"[0-9a-f]{32}", broken.headers["X-Request-ID"])


def test_the_numbers_fit_the_service() -> None:
    def number(directive: str) -> int:
        (value,) = re.findall(rf"^\s*{directive} (\d+)[sm];", CONFIGURATION, re.MULTILINE)
        return int(value)

    assert number("client_max_body_size") * 2**20 > DEFAULTS["max_body_bytes"]
    assert number("keepalive_timeout") < _KEEP_ALIVE_S
    assert number("proxy_read_timeout") > DEFAULTS["request_timeout_s"]
    assert number("proxy_send_timeout") > DEFAULTS["body_timeout_s"]
