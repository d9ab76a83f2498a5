"""The versions that may be installed: the pins are among them, and insides have upper bounds."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

_REPOSITORY = Path(__file__).parents[1]
_PROJECT = tomllib.loads((_REPOSITORY / "pyproject.toml").read_text())["project"]
REQUIREMENTS = {found.name: found for found in map(Requirement, _PROJECT["dependencies"])}
PINS = dict(
    re.findall(r"^(\S+?)==(\S+)$", (_REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
)


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_the_pinned_version_may_be_installed(name: str) -> None:
    pins = {spelling.replace("_", "-"): pin for spelling, pin in PINS.items()}

    assert REQUIREMENTS[name].specifier.contains(pins[name.replace("_", "-")])


@pytest.mark.parametrize("name", ["h11", "torch", "uvicorn"])
def test_what_is_used_from_the_inside_comes_in_no_version_that_was_not_tried(name: str) -> None:
    bounds = [bound for bound in REQUIREMENTS[name].specifier if bound.operator == "<"]

    assert len(bounds) == 1
