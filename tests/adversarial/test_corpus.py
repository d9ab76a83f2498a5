"""Thousands of odd, broken and hostile images of others, when IMAGE_CORPUS names an archive.

It holds files and MANIFEST.jsonl, whose lines tell of each `file` whether Pillow reads it: what its
`pillow_13_allowlist` says is ok or error.
"""

import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.adversarial.any_answer import check_any_answer
from tests.adversarial.attack_files import MIB
from tests.adversarial.service_process import ServiceProcess, run_service_process
from tests.app.answers import embeddings, post_images
from tests.app.images import encode, scene

CORPUS = os.environ.get("IMAGE_CORPUS")
FORMS = ("octet-stream", "multipart", "json")
HONEST = encode(scene(0))
MAX_GROWTH_BYTES = 64 * MIB

pytestmark = pytest.mark.skipif(not CORPUS, reason="IMAGE_CORPUS names no archive")


@pytest.fixture(scope="module")
def files() -> dict[str, tuple[bytes, bool]]:
    """Each file's bytes, and whether Pillow reads it."""
    assert CORPUS is not None
    with tarfile.open(CORPUS) as archive:
        content = {
            member.name: file.read()
            for member in archive
            if (file := archive.extractfile(member)) is not None
        }
    manifest = map(json.loads, content.pop("MANIFEST.jsonl").splitlines())
    return {
        line["file"]: (content[line["file"]], line["pillow_13_allowlist"] == "ok")
        for line in manifest
    }


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, _no_settings_from_outside: None
) -> Iterator[ServiceProcess]:
    folder: Path = tmp_path_factory.mktemp("service")
    with run_service_process(folder) as process:
        yield process


def test_every_file_is_answered_in_every_form_and_leaves_nothing_behind(
    service: ServiceProcess, files: dict[str, tuple[bytes, bool]]
) -> None:
    honest = embeddings(post_images(service.client, "raw", [HONEST]))
    resident_bytes = []
    statuses = []
    for form in FORMS:
        statuses.append(_replay(service, form, files))
        resident_bytes.append(service.resident_bytes)
        after = embeddings(post_images(service.client, "raw", [HONEST]))
        np.testing.assert_allclose(after, honest, rtol=0, atol=1e-6)

    assert statuses[0] == statuses[1] == statuses[2]
    assert Counter(statuses[0].values())[200] > 0
    assert resident_bytes[-1] - resident_bytes[0] < MAX_GROWTH_BYTES
    assert "unexpectedly" not in service.log


def _replay(
    service: ServiceProcess, form: str, files: dict[str, tuple[bytes, bool]]
) -> dict[str, int]:
    """Send every file in one form: -> its status."""
    statuses = {}
    for name, (data, readable) in files.items():
        answer = post_images(service.client, form, [data])
        check_any_answer(answer)
        assert answer.status_code in (200, 413) or not readable, (name, answer.text)
        if data:  # a body of nothing holds no image, a part of nothing is one
            statuses[name] = answer.status_code
    return statuses
