"""Decoding processes that hang, die or are left behind: the service goes on by itself."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.adversarial.service_process import ServiceProcess, run_service_process
from tests.app.answers import FORMS, embeddings, post_images
from tests.app.images import encode, scene

HONEST = encode(scene(0))
_START_S = 30
_GONE_S = 30
# Five looks, one a second, at a decoder that uses no processor time; and some, for a busy machine.
_RECOVERY_S = 20


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    with run_service_process(tmp_path) as process:
        yield process


def test_when_all_decoders_hang_the_service_recovers_by_itself(service: ServiceProcess) -> None:
    vectors = embeddings(post_images(service.client, FORMS[0], [HONEST]))
    decoders = service.decoders
    for pid in decoders:
        _wait_until_started(pid)
        os.kill(pid, signal.SIGSTOP)
    hung = len(decoders)

    def ask(_: int) -> int:
        return post_images(service.client, FORMS[0], [HONEST]).status_code

    began = time.monotonic()
    with ThreadPoolExecutor(2 * hung) as clients:
        statuses = list(clients.map(ask, range(2 * hung)))

    assert statuses == [200] * (2 * hung), "they had hung before any image came"
    assert time.monotonic() - began < _RECOVERY_S
    assert service.client.get("/healthz").status_code == 200
    again = embeddings(post_images(service.client, FORMS[0], [HONEST]))
    assert np.array_equal(vectors, again)


def _wait_until_started(pid: int) -> None:
    """Wait until a decoder has closed its error output, which it does when it is ready."""
    give_up_at = time.monotonic() + _START_S
    while Path(f"/proc/{pid}/fd/2").readlink() != Path(os.devnull):
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


def test_no_decoder_outlives_the_service(service: ServiceProcess) -> None:
    decoders = service.decoders
    assert decoders

    service.process.kill()
    service.process.wait()

    give_up_at = time.monotonic() + _GONE_S
    while any(Path(f"/proc/{pid}").exists() for pid in decoders):
        assert time.monotonic() < give_up_at
        time.sleep(0.05)
