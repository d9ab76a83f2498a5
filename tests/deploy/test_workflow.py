"""The workflow for a host of the project: it runs .ci/run, on what the classifiers say."""

import re
import subprocess
import tomllib

import pytest
import yaml  # type: ignore[import-untyped] # it brings no types

from app import __version__
from tests.deploy.tools import ROOT

JOBS = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def commands(job: str) -> list[str]:
    return [step["run"] for step in JOBS[job]["steps"] if "run" in step]


def test_the_checks_are_those_of_the_repository() -> None:
    assert commands("check") == [".ci/run"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_classifiers_say_what_is_tested() -> None:
    prefix = "Programming Language :: Python :: "
    said = [name.removeprefix(prefix) for name in PROJECT["classifiers"] if name.startswith(prefix)]
    assert said == JOBS["check"]["strategy"]["matrix"]["python"]
    assert PROJECT["requires-python"] == f">={said[0]}"


def test_every_make_target_of_the_workflow_exists() -> None:
    targets = re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    called = re.findall(r"make ([\w-]+)", " ".join(commands("image")))
    assert called == ["image", "test-docker"]
    assert set(called) <= set(targets)


@pytest.mark.parametrize(("target", "tag"), [("image", ""), ("image-cuda", "-cuda")])
def test_images_are_tagged_with_the_version(target: str, tag: str) -> None:
    told = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f"IMAGE=siglip-embed:{__version__}{tag} " in told.stdout
