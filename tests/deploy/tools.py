"""The programs these tests run: Debian's prometheus and kubernetes-client.

Without them a test is skipped; with REQUIRE_DEPLOY_TOOLS=1 it fails instead.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OBSERVABILITY = ROOT / "deploy" / "observability"
KUBERNETES = ROOT / "deploy" / "kubernetes"


def require_tool(name: str) -> str:
    """Return the path of a program."""
    path = shutil.which(name)
    if path is None and os.environ.get("REQUIRE_DEPLOY_TOOLS") == "1":
        pytest.fail(f"REQUIRE_DEPLOY_TOOLS=1, but there is no {name}")
    if path is None:
        pytest.skip(f"needs {name}")
    return path


def run_tool(name: str, *arguments: str | Path) -> str:
    """Return what a program writes to standard output; it must succeed."""
    done = subprocess.run(
        [require_tool(name), *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
