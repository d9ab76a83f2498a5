"""The script for a CUDA machine, tried without one: it must run when somebody has ten minutes."""

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.__main__ import run_bounded
from benchmarks.gpu.stage import Results, quick_plan
from benchmarks.gpu.stages import STAGES

ROOT = Path(__file__).parents[2]
NOT_ON_A_CPU = {
    "tests": {"tests"},
    "memory": {"memory"},
    "lock": {"graph"},
    "kernels": {
        "CUDNN_ATTENTION, tiny-patch16-224",
        "EFFICIENT_ATTENTION, tiny-patch16-224",
        "torch.compile",
    },
    "large": {"NaFlex, varlen"},
    "reference": {"torch.compile"},
}


def read(folder: Path, stage: str) -> dict[str, Any]:
    """Return what a stage has written."""
    result: dict[str, Any] = json.loads((folder / f"gpu_{stage}.json").read_bytes())
    return result


@pytest.mark.timeout(1200)  # some seconds where nothing else runs
def test_every_stage_measures_what_a_cpu_can_and_names_what_it_cannot(tmp_path: Path) -> None:
    command = ["-m", "benchmarks.gpu", "--device", "cpu", "--quick", "--out", str(tmp_path)]

    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)

    for stage in STAGES:
        result = read(tmp_path, stage.name)
        assert set(result["missing"]) - {"nvidia-smi"} == NOT_ON_A_CPU.get(stage.name, set())
        assert all(result["tables"].values())  # none is without rows
        assert bool(result["tables"]) != stage.needs_cuda
    skipped = read(tmp_path, "tests")["missing"]["tests"]
    assert "no CUDA device" in skipped
    images = read(tmp_path, "parity")["tables"]["images: least cosine to float32 on the CPU"]
    assert min(min(row["pooled"], row["patches"]) for row in images) > 0.999


def test_what_a_stage_has_found_is_on_the_disk_before_it_ends(tmp_path: Path) -> None:
    results = Results("trial", tmp_path)

    with results.table("figures") as add:
        add({"": "first", "ms": 1.5})
        with results.attempt("second"):
            raise ZeroDivisionError("the device\nis gone")
        written = read(tmp_path, "trial")

    assert written["tables"] == {"figures": [{"": "first", "ms": 1.5}]}
    assert written["missing"] == {"second": "ZeroDivisionError: the device"}


def test_a_stage_is_ended_when_its_time_is_over(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    stage = next(stage for stage in STAGES if stage.name == "machine")

    row = run_bounded(context, stage._replace(limit_s=0), quick_plan("cpu", tmp_path))

    assert row["ended"] == "not within 0 s"
