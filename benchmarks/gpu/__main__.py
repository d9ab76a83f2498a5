"""All that is asked of a CUDA machine, in some ten minutes; in twice that at the most.

`python -m benchmarks.gpu [--out results] [--device cuda] [--stages machine tests ...] [--quick]`

Every stage is a process of its own with a bound on its time, and writes what it has found as soon
as it is found: gpu_<stage>.json. A run that is cut short, or a stage that fails, costs what was not
measured yet. What needs a CUDA device says where there is none that it was skipped.
`--device cpu --quick` tries the script itself.
"""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.gpu.stage import Plan, Results, Stage, quick_plan
from benchmarks.gpu.stages import STAGES, run_stage
from benchmarks.report import RESULTS, Row, console, draw_table

_END_S = 90  # servers that a stage has begun to start are ended once they have started


def main() -> int:
    """Run the stages one after another; status 1 when one of them broke or ran out of time."""
    options = _parse_options()
    plan = (quick_plan if options.quick else Plan)(options.device, options.out)
    plan.out.mkdir(parents=True, exist_ok=True)
    # Forked from a process that has imported torch, and has not touched the device.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.gpu.stages"])
    rows = []
    for stage in STAGES:
        if stage.name in options.stages:
            rows.append(run_bounded(context, stage, plan))
            console.print(draw_table("stages so far", rows))
    return int(any(row["ended"] not in ("done", "skipped") for row in rows))


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    names = [stage.name for stage in STAGES]
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1; cpu to try the script")
    parser.add_argument("--stages", nargs="+", default=names, choices=names, metavar="STAGE")
    parser.add_argument("--quick", action="store_true", help="tiny models: shows that it works")
    return parser.parse_args()


def run_bounded(
    context: multiprocessing.context.ForkServerContext, stage: Stage, plan: Plan
) -> Row:
    """Run one stage in a process of its own, and end it when its time is over."""
    console.rule(stage.name)
    start = time.monotonic()
    if stage.needs_cuda and not plan.on_cuda:
        Results(stage.name, plan.out).skip(stage.name, f"skipped: no CUDA device, {plan.device}")
        return {"stage": stage.name, "ended": "skipped", "s": 0.0}
    process = context.Process(target=run_stage, args=(stage.name, plan))
    process.start()
    process.join(stage.limit_s * plan.patience)
    ended = "done" if process.exitcode == 0 else f"status {process.exitcode}"
    if process.is_alive():
        ended = f"not within {stage.limit_s * plan.patience:g} s"
        _end(process)
    return {"stage": stage.name, "ended": ended, "s": time.monotonic() - start}


def _end(process: multiprocessing.process.BaseProcess) -> None:
    steps: tuple[Callable[[], None], ...] = (process.terminate, process.kill)
    for end in steps:
        end()
        process.join(_END_S)
        if not process.is_alive():
            return


if __name__ == "__main__":
    sys.exit(main())
