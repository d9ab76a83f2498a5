"""A machine that runs out: of disk, of file descriptors. The service refuses, or needs none."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.adversarial.attack_files import MIB
from tests.adversarial.service_process import ServiceProcess, run_service_process
from tests.app.answers import FORMS, embeddings, post_images
from tests.app.images import encode, scene

HONEST = encode(scene(0))
OPEN_FILES = 64
_RECOVERY_S = 30


@pytest.fixture(scope="module")
def service_without_disk(
    tmp_path_factory: pytest.TempPathFactory, _no_settings_from_outside: None
) -> Iterator[ServiceProcess]:
    """A service that cannot write a byte to any file."""
    with run_service_process(tmp_path_factory.mktemp("no-disk"), max_file_bytes=0) as process:
        yield process


@pytest.mark.parametrize("form", FORMS)
def test_a_large_upload_needs_no_disk(service_without_disk: ServiceProcess, form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1_500, 2_000, 3), np.uint8)
    data = encode(Image.fromarray(noise), "BMP")
    assert len(data) > 8 * MIB

    answer = post_images(service_without_disk.client, form, [data])

    assert np.isfinite(embeddings(answer)).all()


def test_a_service_out_of_file_descriptors_recovers(tmp_path: Path) -> None:
    with run_service_process(tmp_path, open_files=OPEN_FILES) as service:
        port = service.client.base_url.port
        assert port is not None
        with ExitStack() as flood:
            for _ in range(2 * OPEN_FILES):
                flood.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            _wait_until_exhausted(service)
        answer = _ask_until_answered(service)

        assert np.isfinite(embeddings(answer)).all()
        assert service.process.poll() is None
        assert len(service.log) < MIB, "one line a second is enough"


def _wait_until_exhausted(service: ServiceProcess) -> None:
    give_up_at = time.monotonic() + _RECOVERY_S
    while len(list((service.proc / "fd").iterdir())) < OPEN_FILES - 1:
        assert time.monotonic() < give_up_at, "the flood did not arrive"
        time.sleep(0.02)


def _ask_until_answered(service: ServiceProcess) -> httpx.Response:
    give_up_at = time.monotonic() + _RECOVERY_S
    while True:
        with suppress(httpx.TransportError):
            return post_images(service.client, "raw", [HONEST])
        assert time.monotonic() < give_up_at, service.log
        time.sleep(0.1)
