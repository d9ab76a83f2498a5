"""Stage 2: the tests that need a device. If vectors are wrong, no figure below counts."""

import importlib.util
import subprocess
import sys

from benchmarks.gpu.stage import Plan, Results
from benchmarks.processes import ROOT

_NEEDED = ("pytest", "pytest_timeout", "transformers")


def measure(plan: Plan, results: Results) -> None:
    """Run them, but for those that compile; keep what pytest says at its end."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        results.skip("pytest -m gpu", f"not installed: {', '.join(missing)}")
        return
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-k", "not compiled", "-q", "tests/gpu"]
    log = plan.out / "gpu_tests.log"
    try:
        with log.open("wb") as file:
            ended = subprocess.run(
                command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=False
            )
    finally:  # the stage may be out of time
        lines = log.read_text(errors="replace").splitlines()
        told = [line for line in lines if line.startswith(("FAILED", "ERROR"))] + lines[-1:]
        with results.table("pytest -m gpu") as add:
            for line in told:
                add({"": line})
    if ended.returncode:
        raise RuntimeError(f"pytest ended with status {ended.returncode}: {log}")
