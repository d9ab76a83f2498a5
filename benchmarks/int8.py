"""Whether 8-bit linear layers are worth their error: speed and cosines against bfloat16.

`python -m benchmarks.int8 [--shape base-patch16-224] [--batch 8] [--quick]`

By CPU time of one thread, interleaved, which a busy machine disturbs little. Weights are drawn by
seed, so the cosines tell of the arithmetic, not of a trained model's outliers; the self-test of a
start tells of the model that is served.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch

from app.engine.embedder import load_embedder
from app.engine.protocol import Embedder, Float32Array, Vectors
from app.observe.logs import configure_logs
from benchmarks.flop import Matmul, tower_matmuls
from benchmarks.material import BASE, least_cosine, photograph_pixels, written_checkpoint
from benchmarks.report import Report, Row, show_machine
from benchmarks.timing import Timing, time_interleaved
from model import SiglipVisionConfig
from model.fused_linear import OneDnnLinear
from model.int8_linear import Int8Linear
from tests.reference import ReferenceCheckpoint

_DTYPES = ("float32", "bfloat16", "int8")


def main() -> None:
    """Measure and report."""
    options = _parse_options()
    configure_logs("error", "console")
    torch.set_num_threads(1)
    show_machine()
    report = Report("int8")
    if torch.cpu.get_capabilities().get("avx512_vnni"):
        config = SiglipVisionConfig.from_shape(options.shape)
        _measure_linears(report, config, options)
        with written_checkpoint(options.shape) as checkpoint:
            _measure_tower(report, checkpoint, config, options)
    else:
        report.miss("int8", "no avx512_vnni here")
    report.save()


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.int8", description=__doc__)
    parser.add_argument("--shape", default=BASE)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that it works")
    options = parser.parse_args()
    if options.quick:
        options.rounds = 3
    return options


def _measure_linears(
    report: Report, config: SiglipVisionConfig, options: argparse.Namespace
) -> None:
    rows: list[Row] = []
    for matmul in tower_matmuls(config, options.batch)[1:]:  # the first one stays bfloat16
        calls, cosine = _linears(matmul, options.batch)
        timings = time_interleaved(calls, options.rounds, clock=time.process_time)
        bfloat16, int8 = timings["bfloat16"].low_s, timings["int8"].low_s
        rows.append(
            {
                "rows x in x out": f"{matmul.rows} x {matmul.inner} x {matmul.columns}",
                "bfloat16 ms": bfloat16 * 1000,
                "int8 ms": int8 * 1000,
                "x bfloat16": bfloat16 / int8,
                "least cosine to float32": cosine,
            }
        )
    report.add_table("linear layers, finding the range of the inputs included", rows)


def _linears(matmul: Matmul, batch: int) -> tuple[Mapping[str, Callable[[], torch.Tensor]], float]:
    """Build one layer in both arithmetics; also the cosine of the 8-bit one to float32."""
    generator = torch.Generator().manual_seed(0)
    shape = batch, matmul.rows // batch, matmul.inner
    inputs = torch.randn(shape, generator=generator).bfloat16()
    weight = torch.randn(matmul.columns, matmul.inner, generator=generator)
    bias = torch.zeros(matmul.columns)
    int8 = Int8Linear(weight, bias, None)
    bfloat16 = OneDnnLinear(weight.bfloat16(), bias.bfloat16(), None)
    expected = inputs.float() @ weight.T
    cosine = torch.cosine_similarity(int8(inputs).float(), expected, dim=-1).min()
    return {"bfloat16": partial(bfloat16, inputs), "int8": partial(int8, inputs)}, float(cosine)


def _measure_tower(
    report: Report,
    checkpoint: ReferenceCheckpoint,
    config: SiglipVisionConfig,
    options: argparse.Namespace,
) -> None:
    embedders = {
        dtype: load_embedder(str(checkpoint.folder), "cpu", dtype, options.batch)
        for dtype in _DTYPES
    }
    pixels = photograph_pixels(options.batch, config.image_size)
    calls = {dtype: partial(embedder.embed, pixels) for dtype, embedder in embedders.items()}
    timings = time_interleaved(calls, options.rounds, clock=time.process_time)
    cosines = {dtype: _cosines(embedders[dtype], embedders["float32"], pixels) for dtype in _DTYPES}
    report.add_table(
        f"{options.shape}, batch {options.batch}: CPU time of one thread, "
        f"lower quartile of {options.rounds}",
        [_tower_row(dtype, timings, cosines[dtype]) for dtype in _DTYPES],
    )
    report.find("int8.over_bfloat16", timings["bfloat16"].low_s / timings["int8"].low_s)
    report.find("int8.least_cosine", min(cosines["int8"]))


def _tower_row(dtype: str, timings: Mapping[str, Timing], cosines: tuple[float, float]) -> Row:
    return {
        "": dtype,
        "ms": timings[dtype].low_s * 1000,
        "x bfloat16": timings["bfloat16"].low_s / timings[dtype].low_s,
        "x float32": timings["float32"].low_s / timings[dtype].low_s,
        "least cosine, pooled": cosines[0],
        "least cosine, patches": cosines[1],
    }


def _cosines(embedder: Embedder, reference: Embedder, pixels: np.ndarray) -> tuple[float, float]:
    """Return the least cosine of pooled and of patch vectors."""
    result, expected = embedder.embed(pixels, True), reference.embed(pixels, True)
    return (
        least_cosine(result.pooled, expected.pooled),
        least_cosine(_patch_rows(result), _patch_rows(expected)),
    )


def _patch_rows(vectors: Vectors) -> Float32Array:
    patches = np.asarray(vectors.patches)
    return patches.reshape(-1, patches.shape[-1])


if __name__ == "__main__":
    main()
