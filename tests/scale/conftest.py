"""The tests of this folder need Ray: the extra `ray`, which `make test-ray` installs."""

from importlib.util import find_spec

import pytest

if not find_spec("ray"):
    collect_ignore_glob = ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all of them."""
    for item in items:
        if "tests/scale/" in item.path.as_posix():
            item.add_marker("ray")
