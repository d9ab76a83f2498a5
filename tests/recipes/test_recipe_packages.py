"""What the extra `recipes` brings: every package of it at the version that is pinned."""

import tomllib
from collections.abc import Iterator
from importlib.metadata import requires, version

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.recipes.conftest import REPOSITORY
from tests.test_dependencies import PINS

pytestmark = pytest.mark.recipes

EXTRAS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"][
    "optional-dependencies"
]
OWN = [line for line in EXTRAS["recipes"] if not line.startswith("siglip-embed")]


def find_packages(lines: list[str], seen: set[str]) -> Iterator[str]:
    """Name what these requirements bring, and what that brings, with the extras that they ask."""
    for requirement in map(Requirement, lines):
        name = canonicalize_name(requirement.name)
        asked = [{"extra": extra} for extra in ("", *requirement.extras)]
        if str(requirement) not in seen:
            seen.add(str(requirement))
            yield name
            needed = [line for line in requires(name) or [] if applies(line, asked)]
            yield from find_packages(needed, seen)


def applies(line: str, asked: list[dict[str, str]]) -> bool:
    marker = Requirement(line).marker
    return marker is None or any(marker.evaluate(extra) for extra in asked)


def test_every_package_is_pinned_and_of_that_version() -> None:
    pins: dict[str, str] = {canonicalize_name(name): pin for name, pin in PINS.items()}
    packages: set[str] = set(find_packages(OWN, set()))

    assert {name: pins.get(name) for name in packages} == {name: version(name) for name in packages}
    assert {"grpcio", "lance-namespace-urllib3-client", "threadpoolctl"} <= packages
