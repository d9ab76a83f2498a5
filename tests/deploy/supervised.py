"""The service with the fake embedder, started anew as by a supervisor, and its clients."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from tests.app.fake_embedder import LOSES_DEVICE
from tests.app.images import encode, plain_png, scene
from tests.deploy.tools import ROOT

_WAIT_S = 90
_CLIENTS = 8
_PAUSE_S = 0.1
_GOOD, _BROKEN = plain_png((1, 2, 3)), encode(scene(0))[:500]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class SupervisedService:
    """One address, at which a process serves, is lost, and is started anew."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", trust_env=False, timeout=60
        )
        self._log = (folder / "service.log").open("wb")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, **variables: str) -> None:
        """Start a process; it may still be loading when this returns."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.deploy.fake_service"],
            cwd=ROOT,
            env={**os.environ, "SIGLIP_PORT": str(self.port), **variables},
            stdout=self._log,
            stderr=self._log,
        )

    def lose_device(self) -> int:
        """Send the image at which the fake's device is lost; return the exit code."""
        assert self._process is not None
        post(self.client, plain_png((LOSES_DEVICE, 0, 0)))
        return self._process.wait(_WAIT_S)

    def wait_until_ready(self) -> None:
        """Ask /readyz until it answers 200."""
        give_up_at = time.monotonic() + _WAIT_S
        while not self._is_ready():
            assert time.monotonic() < give_up_at, "the service did not get ready"
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        with suppress(httpx.TransportError):
            return self.client.get("/readyz").is_success
        return False

    def stop(self) -> int:
        """Stop it as an operator does, and return the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(_WAIT_S)

    def hang(self) -> None:
        """Have the device hang with the next batch."""
        assert self._process is not None
        self._process.send_signal(signal.SIGUSR1)

    def go_on(self) -> None:
        """Have the device go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGUSR2)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._log.close()
        self.client.close()


def post(client: httpx.Client, image: bytes) -> int | None:
    """Post an image; return the status, or None when nobody answers."""
    with suppress(httpx.TransportError):
        return client.post("/embed", content=image).status_code
    return None


@contextmanager
def load_on(client: httpx.Client) -> Iterator[None]:
    """Have eight clients send images, every tenth a broken one, until the block ends."""
    over = threading.Event()

    def send() -> None:
        sent = 0
        while not over.wait(_PAUSE_S):
            sent += 1
            post(client, _GOOD if sent % 10 else _BROKEN)

    threads = [threading.Thread(target=send) for _ in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
