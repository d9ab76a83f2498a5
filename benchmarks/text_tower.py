"""The text tower by itself: how many texts to a batch, and what each precision costs and gives.

`python -m benchmarks.text_tower [--quick]`

By CPU time of one thread, interleaved, which a busy machine disturbs little; `--wall` times batches
on all cores. The weights are lively: attention has favourites, so that rounding shows.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from app.engine.protocol import Int64Array
from app.engine.towers.plain import PlainRunner
from app.engine.towers.text_builder import collate_texts
from app.observe.logs import configure_logs
from benchmarks.material import least_cosine
from benchmarks.report import Report, Row, show_machine
from benchmarks.timing import time_interleaved
from model import SiglipTextConfig, SiglipTextModel
from model.modeling_siglip_text_fused import FusedTextTransformer
from tests.reference import draw_lively_weights
from tests.text_reference import draw_input_ids

_BATCHES = (1, 2, 4, 8, 16, 24, 32, 48)
_DTYPES = (torch.float32, torch.bfloat16, torch.int8)
_CPU = torch.device("cpu")
_TEXTS = 24
# Of base, large and so400m; the token table, which is looked up only, is a small one.
_SHAPES: dict[str, dict[str, Any]] = {
    "base": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
    "large": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
    },
    "so400m": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
    },
}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text_tower", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--wall", action="store_true", help="batches on all cores, by wall time")
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that it works")
    options = parser.parse_args()
    configure_logs("error", "console")
    show_machine()
    report = Report("text_tower")
    rounds = 2 if options.quick else options.rounds
    if not options.wall:
        torch.set_num_threads(1)
    clock = time.perf_counter if options.wall else time.process_time
    _measure_batches(report, rounds, clock, "all cores" if options.wall else "CPU time of a thread")
    for name in ("base",) if options.quick else _SHAPES:
        _measure_dtypes(report, name, rounds)
    report.save()


def _build(name: str) -> tuple[SiglipTextModel, list[Int64Array]]:
    """Build a lively tower of a shape, and texts of several lengths for it."""
    config = SiglipTextConfig(vocab_size=1000, **_SHAPES[name])
    with torch.device("meta"):
        model = SiglipTextModel(config)
    model = model.to_empty(device="cpu").eval()
    draw_lively_weights(model)
    return model, list(draw_input_ids(config, _TEXTS).numpy())


def _run(tower: FusedTextTransformer) -> Callable[[Sequence[Int64Array]], np.ndarray]:
    runner = PlainRunner(tower, collate_texts, _CPU, 64)
    return lambda texts: np.asarray(runner.begin(texts, 0)().pooled)


def _measure_batches(report: Report, rounds: int, clock: Callable[[], float], unit: str) -> None:
    model, texts = _build("base")
    run = _run(FusedTextTransformer(model.text_model, _CPU, torch.bfloat16))
    calls = {str(size): partial(run, (texts * 2)[:size]) for size in _BATCHES}
    timings = time_interleaved(calls, rounds, clock=clock)
    rows: list[Row] = [
        {"texts": size, "ms": 1000 * own, "texts/s": size / own}
        for size in _BATCHES
        for own in (timings[str(size)].low_s,)
    ]
    report.add_table(f"base, bfloat16, batches: {unit}, lower quartile of {rounds}", rows)


def _measure_dtypes(report: Report, name: str, rounds: int) -> None:
    model, texts = _build(name)
    with torch.inference_mode():
        expected = model(torch.from_numpy(np.stack(texts))).pooler_output.numpy()
    torch.set_num_threads(1)
    runs = {
        str(d).removeprefix("torch."): _run(FusedTextTransformer(model.text_model, _CPU, d))
        for d in _DTYPES
    }
    vectors = {dtype: run(texts) for dtype, run in runs.items()}
    calls = {dtype: partial(run, texts[:8]) for dtype, run in runs.items()}
    timings = time_interleaved(calls, rounds, clock=time.process_time)
    rows: list[Row] = [
        {
            "": dtype,
            "ms a text": 1000 * timings[dtype].low_s / 8,
            "x bfloat16": timings["bfloat16"].low_s / timings[dtype].low_s,
            "least cosine": least_cosine(vectors[dtype], expected),
        }
        for dtype in runs
    ]
    report.add_table(f"{name}: 8 texts, CPU time of one thread; cosine to float32", rows)
    for dtype in runs:
        report.find(
            f"text_tower.{name}.{dtype}.least_cosine", least_cosine(vectors[dtype], expected)
        )


if __name__ == "__main__":
    main()
