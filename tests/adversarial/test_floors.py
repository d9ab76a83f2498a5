"""What reads strangers' bytes is no older than the release that mended what is known of it."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

_REPOSITORY = Path(__file__).parents[2]

FLOORS = {
    # CVE-2026-112403, CVE-2026-96639: heap overflows in the JPEG decoder and across frames;
    # CVE-2026-96643: an Exif header that is replaced for ever.
    "pillow": "13.0.0",
    # CVE-2026-42561: endless headers of a part; CVE-2026-40347, CVE-2024-53981: time that grows
    # with what is in front of a form or behind it.
    "python-multipart": "0.0.27",
    # CVE-2026-54283: form limits passed over; CVE-2025-62727: a quadratic Range header;
    # CVE-2025-54121: large parts written to disk on the event loop.
    "starlette": "1.3.1",
    # CVE-2025-43859: chunked bodies that a proxy may read otherwise.
    "h11": "0.16.0",
    # CVE-2025-67221, CVE-2024-27454: recursion without a limit.
    "orjson": "3.11.6",
}


@pytest.mark.parametrize("name", FLOORS)
def test_what_is_installed_is_new_enough(name: str) -> None:
    assert Version(version(name)) >= Version(FLOORS[name])


@pytest.mark.parametrize("name", FLOORS)
def test_what_is_pinned_is_new_enough(name: str) -> None:
    pins = (_REPOSITORY / "constraints.txt").read_text()
    pinned = re.search(rf"^{name}==(.+)$", pins, re.MULTILINE)
    assert pinned
    assert Version(pinned[1]) >= Version(FLOORS[name])


@pytest.mark.parametrize("name", FLOORS)
def test_an_older_version_cannot_be_installed_beside_the_service(name: str) -> None:
    project = tomllib.loads((_REPOSITORY / "pyproject.toml").read_text())["project"]
    (requirement,) = (
        requirement
        for requirement in map(Requirement, project["dependencies"])
        if requirement.name == name
    )
    (floor,) = (bound for bound in requirement.specifier if bound.operator == ">=")
    assert floor.version == FLOORS[name]
