"""Run all benchmarks and hold their findings against the budgets.

`python -m benchmarks [--quick] [--cpu-time] [--skip model ...]`

Exit status 1 when a budget that could be measured does not hold. Each script is a process of its
own, so that none inherits another's thread pools and memory.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.budgets import BUDGETS, Budget
from benchmarks.report import RESULTS, Row, console, draw_table

_SCRIPTS = (
    "encode",
    "decode",
    "startup",
    "model",
    "int8",
    "serving",
    "texts",
    "soak",
    "refusals",
    "overload",
)
_ROOT = Path(__file__).parents[1]


def main() -> int:
    """Run, then judge."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that it works")
    parser.add_argument("--cpu-time", action="store_true", help="for busy machines: see model")
    parser.add_argument("--skip", nargs="+", default=[], choices=_SCRIPTS, metavar="SCRIPT")
    options = parser.parse_args()
    findings: dict[str, float] = {}
    missing: dict[str, str] = {}
    for script in _SCRIPTS:
        if script in options.skip:
            missing[script] = "skipped"
            continue
        result = _run(script, _flags(script, options))
        findings |= result["findings"]
        missing |= result["missing"]
    rows = [_judge(budget, findings, missing) for budget in BUDGETS]
    console.print(draw_table("budgets", rows))
    (RESULTS / "budgets.json").write_text(json.dumps(rows, indent=1) + "\n")
    return int(any(row["holds"] == "NO" for row in rows))


def _flags(script: str, options: argparse.Namespace) -> list[str]:
    quick = ["--quick"] if options.quick else []
    return [*quick, "--cpu-time"] if options.cpu_time and script == "model" else quick


def _run(script: str, flags: list[str]) -> dict[str, Any]:
    """Run one script and return what it wrote; when it fails, the reason for all its findings."""
    console.rule(script)
    path = RESULTS / f"{script}.json"
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", f"benchmarks.{script}", *flags]
    ended = subprocess.run(command, cwd=_ROOT, check=False)
    if ended.returncode or not path.is_file():
        return {"findings": {}, "missing": {script: f"ended with status {ended.returncode}"}}
    result: dict[str, Any] = json.loads(path.read_bytes())
    return result


def _judge(budget: Budget, findings: dict[str, float], missing: dict[str, str]) -> Row:
    row: dict[str, str | float | None] = {"budget": budget.what, "bar": budget.bar}
    if budget.needs_bfloat16 and not _has_native_bfloat16():
        return row | {"measured": None, "holds": "not measured: no native bfloat16 here"}
    measured = findings.get(budget.finding)
    if measured is None:
        reason = missing.get(budget.finding) or missing.get(budget.script) or "peer not installed"
        return row | {"measured": None, "holds": f"not measured: {reason}"}
    if budget.bar == "told only":
        return row | {"measured": measured, "holds": "-"}
    return row | {"measured": measured, "holds": "yes" if budget.holds(measured) else "NO"}


def _has_native_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


if __name__ == "__main__":
    sys.exit(main())
