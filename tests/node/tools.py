"""Node, and the packages of tests/node/package.json, which `make .venv/.node` installs.

Without them a test is skipped; with REQUIRE_NODE=1 it fails instead.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent
MODULES = Path(sys.prefix) / "node" / "node_modules"
"""The packages, each in a folder of its name."""
_TIMEOUT_S = 120


def require_node() -> str:
    """Return the path of the program."""
    return _require(shutil.which("node"), "node")


def require_package(name: str) -> Path:
    """Return the folder of a package."""
    found = MODULES / name
    return Path(_require(str(found) if found.is_dir() else None, f"{name} (make .venv/.node)"))


def run_script(name: str, folder: Path, *arguments: str | Path) -> dict[str, Any]:
    """Run a script of tests/node in a copy beside the packages, and read what it prints as JSON."""
    node = require_node()
    shutil.copy(FOLDER / name, folder)
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(MODULES)
    done = subprocess.run(
        [node, name, *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"]},  # no proxy, no options of Node
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def _require(found: str | None, name: str) -> str:
    if found is None and os.environ.get("REQUIRE_NODE") == "1":
        pytest.fail(f"REQUIRE_NODE=1, but there is no {name}")
    if found is None:
        pytest.skip(f"needs {name}")
    return found
