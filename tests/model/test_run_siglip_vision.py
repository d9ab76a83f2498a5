"""The example script, in both ways that it is documented to run."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRINTED = "Output shape: torch.Size([1, 196, 768])\n"


def run_python(*arguments: str, folder: Path) -> tuple[str, str]:
    """Run Python in a folder, and return what it printed and complained about."""
    finished = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return finished.stdout, finished.stderr


def test_run_as_a_module_it_prints_the_output_shape_and_nothing_else() -> None:
    assert run_python("-m", "model.run_siglip_vision", folder=ROOT) == (PRINTED, "")


def test_run_by_path_it_does_so_from_any_folder(tmp_path: Path) -> None:
    script = str(ROOT / "model" / "run_siglip_vision.py")
    assert run_python(script, folder=tmp_path) == (PRINTED, "")
