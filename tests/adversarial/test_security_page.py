"""docs/security.md names settings, defaults and tests that exist."""

import re
from pathlib import Path

import pytest

from app.settings import Settings

_REPOSITORY = Path(__file__).parents[2]
PAGE = (_REPOSITORY / "docs" / "security.md").read_text()
LIMITS = re.findall(r"^\| `SIGLIP_(\w+)` \| ([^|]+) \|", PAGE, re.MULTILINE)
TESTS = sorted(set(re.findall(r"`([\w/]*test_\w+\.py)`", PAGE)))


@pytest.mark.parametrize(("name", "shown"), LIMITS)
def test_a_limit_has_the_default_that_is_shown(name: str, shown: str) -> None:
    default = Settings.model_fields[name.lower()].default
    if isinstance(default, int) and not isinstance(default, bool):
        number, _, unit = shown.partition(" ")
        assert int(number) * {"": 1, "KiB": 2**10, "MiB": 2**20}[unit] == default
    elif isinstance(default, frozenset) and default:
        assert shown.split(", ") == sorted(default)
    else:
        assert shown.startswith("auto" if default == "auto" else ("none", "off"))
        assert default == "auto" or not default


@pytest.mark.parametrize("path", TESTS)
def test_a_test_that_is_named_exists(path: str) -> None:
    folder = _REPOSITORY / "tests"
    assert (folder / path if "/" in path else folder / "adversarial" / path).is_file()


def test_every_test_of_this_folder_is_named() -> None:
    here = {path.name for path in Path(__file__).parent.glob("test_*.py")}
    assert here - set(TESTS) == {Path(__file__).name}


def test_links_lead_somewhere() -> None:
    for page in (_REPOSITORY / "docs" / "security.md", _REPOSITORY / "SECURITY.md"):
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert link.startswith("https://") or (page.parent / link).exists(), link
