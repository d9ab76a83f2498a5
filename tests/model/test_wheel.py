"""The wheel: type checkers of others find our types in it, and the service its page."""

import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

from app.api import playground

ROOT = Path(__file__).parents[2]


def test_the_wheel_holds_what_is_no_python(tmp_path: Path) -> None:
    for package in ("app", "model"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    build = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(ZipFile(wheel).namelist())
    assert {"app/py.typed", "model/py.typed", "model/pretrained.py"} <= packed
    assert {f"app/playground/{name}" for name in playground.PATHS.values()} <= packed
