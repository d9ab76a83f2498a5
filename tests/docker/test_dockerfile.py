"""What can be said about the Docker files without an engine."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped] # it brings no types

from app.settings import Settings

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, arguments), comments gone and lines joined."""
    text = (_ROOT / "Dockerfile").read_text()
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "")
    pairs = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(name, arguments) for name, arguments in pairs]


@pytest.fixture(scope="module")
def final_stage(instructions: list[tuple[str, str]]) -> dict[str, str]:
    names = [name for name, _ in instructions]
    last = len(names) - names[::-1].index("FROM")
    return dict(instructions[last:])


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    return _service("docker-compose.yml")


def _service(file: str) -> dict[str, Any]:
    service: dict[str, Any] = yaml.safe_load((_ROOT / file).read_text())["services"]["siglip"]
    return service


def test_the_build_fetches_no_frontend() -> None:
    assert not re.search(r"^#\s*syntax\s*=", (_ROOT / "Dockerfile").read_text(), re.MULTILINE)


def test_every_stage_starts_from_the_chosen_base(instructions: list[tuple[str, str]]) -> None:
    bases = {arguments.split()[0] for name, arguments in instructions if name == "FROM"}
    assert bases == {"${BASE_IMAGE}"}


@pytest.mark.parametrize(("extras", "also"), [("", False), ("ray", False), ("heic otel", True)])
def test_the_image_has_the_extras_that_the_build_names(
    instructions: list[tuple[str, str]], extras: str, also: bool
) -> None:
    (listing,) = [run for name, run in instructions if name == "RUN" and "tomllib" in run]
    command = shlex.split(listing.partition(" > ")[0])[2].replace(
        "/pyproject.toml", "pyproject.toml"
    )
    listed = subprocess.run(
        [sys.executable, "-c", command],
        cwd=_ROOT,
        env={"EXTRAS": extras},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    assert "fastapi" in listed
    assert ("pillow-heif" in listed) == ("opentelemetry-sdk" in listed) == also
    assert any(name.startswith("ray[") for name in listed) == (extras == "ray")
    assert "pytest" not in listed
    assert not any(name.startswith("siglip-embed") for name in listed)  # the index may have one


def test_the_user_is_a_number_and_not_root(final_stage: dict[str, str]) -> None:
    """Kubernetes' runAsNonRoot can judge a number only."""
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", final_stage["USER"])


def test_the_command_gets_its_signals_without_a_shell(final_stage: dict[str, str]) -> None:
    assert json.loads(final_stage["CMD"])[0] == "python"


def test_the_image_checks_its_health(final_stage: dict[str, str]) -> None:
    command = json.loads(final_stage["HEALTHCHECK"].partition("CMD")[2])
    assert "/healthz" in command[-1]
    compile(command[-1], "HEALTHCHECK", "exec")


def test_the_build_context_holds_what_is_copied_and_no_more(
    instructions: list[tuple[str, str]],
) -> None:
    copied = {
        source
        for name, arguments in instructions
        if name == "COPY" and not arguments.startswith("--from=")
        for source in shlex.split(arguments)[:-1]
    }
    lines = (_ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied
    assert all(any(_ROOT.glob(source)) for source in copied)


def test_the_container_is_confined(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert 0 < service["pids_limit"] <= 512
    assert service["mem_limit"]
    (tmpfs,) = service["tmpfs"]
    folder, options = tmpfs.split(":")
    assert folder == "/tmp"  # noqa: S108 # the one folder that is meant
    assert {"size=64m", "noexec", "nosuid", "nodev"} <= set(options.split(","))
    assert "privileged" not in service


def test_every_setting_can_be_set_through_compose(service: dict[str, Any]) -> None:
    """All but the address and port inside the container, which the image and `ports` rely on."""
    passed = {name for name in service["environment"] if name.startswith("SIGLIP_")}
    settings = {f"SIGLIP_{name.upper()}" for name in Settings.model_fields}
    assert passed == settings - {"SIGLIP_HOST", "SIGLIP_PORT"}


def test_compose_repeats_only_the_default_of_the_model(service: dict[str, Any]) -> None:
    given = {name: value for name, value in service["environment"].items() if value is not None}
    default = Settings.model_fields["model"].default
    assert given == {"SIGLIP_MODEL": f"${{SIGLIP_MODEL:-{default}}}"}


def test_compose_waits_longer_than_the_service_drains(service: dict[str, Any]) -> None:
    wait_s = int(service["stop_grace_period"].removesuffix("s"))
    assert wait_s > Settings.model_fields["grace_s"].default


def test_an_empty_wheel_index_is_accepted(service: dict[str, Any]) -> None:
    """`-` keeps a variable that is set to nothing; `:-` would put the default in its place."""
    assert service["build"]["args"]["TORCH_INDEX_URL"].startswith("${TORCH_INDEX_URL-https://")


def test_the_gpu_override_reserves_a_device() -> None:
    devices = _service("docker-compose.gpu.yml")["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
