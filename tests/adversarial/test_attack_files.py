"""Hostile files over HTTP: each gets its own answer, and none costs more than an honest one."""

from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from tests.adversarial.attack_files import MIB, Attack, all_attacks
from tests.adversarial.service_process import ServiceProcess, run_service_process
from tests.app.answers import check_error, embeddings, post_images
from tests.app.images import encode, scene

HONEST = encode(scene(0), "PNG")
# Honest work is a hundredth of a second here, and the files that this is about took 2 s to 33 s.
MAX_CPU_S = 1.5
MAX_PEAK_BYTES = 64 * MIB
# A body is held as chunks, as one piece, and as what of it is passed on.
COPIES_OF_BODY = 3


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, _no_settings_from_outside: None
) -> Iterator[ServiceProcess]:
    """A process that serves the tiny model with all limits at their defaults."""
    with run_service_process(tmp_path_factory.mktemp("service")) as process:
        post_images(process.client, "raw", [HONEST])  # what is made once is made now
        yield process


@pytest.mark.parametrize("attack", all_attacks(), ids=lambda attack: attack.name)
def test_a_hostile_file_gets_its_answer_and_costs_little(
    service: ServiceProcess, attack: Attack
) -> None:
    data = attack.make()
    before = embeddings(post_images(service.client, "raw", [HONEST]))

    def send() -> httpx.Response:
        return post_images(service.client, "octet-stream", [data])

    answer, cost = service.cost_of(send)

    if attack.code is None:
        assert np.isfinite(embeddings(answer)).all()
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-type"] == "application/json"
    elif data:
        check_error(answer, attack.status, attack.code, "images[0]")
    else:
        check_error(answer, 400, "no_images")
    assert cost.cpu_s < MAX_CPU_S
    assert cost.peak_bytes < MAX_PEAK_BYTES + COPIES_OF_BODY * len(data)
    after = embeddings(post_images(service.client, "raw", [HONEST]))
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-6)
