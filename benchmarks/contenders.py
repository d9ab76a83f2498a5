"""The same SigLIP weights behind different libraries, each as a function of the same images."""

import copy
import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch

from app.engine.embedder import load_embedder
from app.engine.protocol import Embedder, Float32Array, UInt8Array
from model import SiglipImageProcessor, fused_attention
from tests.reference import ReferenceCheckpoint

Call = Callable[[], Float32Array]
Prepare = Callable[[UInt8Array], Call]
"""Images uint8 (batch, height, width, 3) -> the timed call, which gives pooled (batch, dim)."""

REFERENCE = "transformers float32"


@dataclass(frozen=True)
class Contender:
    """A way to compute pooled vectors; what `prepare` does is not timed."""

    name: str
    dtype: str
    prepare: Prepare


def our_contenders(checkpoint: ReferenceCheckpoint, device: str) -> Iterator[Contender]:
    """Our engine; its time includes normalising the pixels and leaving torch."""
    for dtype in ("bfloat16", "float32"):
        embedder = load_embedder(str(checkpoint.folder), device, dtype)
        yield Contender(f"ours {dtype}", dtype, _our_call(embedder))


def other_attention(checkpoint: ReferenceCheckpoint) -> Contender:
    """Ours on the CPU in bfloat16, with the attention that is not chosen on this processor."""
    tiles = fused_attention.multiplies_tiles()
    with mock.patch.object(fused_attention, "multiplies_tiles", return_value=not tiles):
        embedder = load_embedder(str(checkpoint.folder), "cpu", "bfloat16")
    name = f"ours bfloat16, attending {embedder.info.attention}"
    return Contender(name, "bfloat16", _our_call(embedder))


def transformers_contenders(checkpoint: ReferenceCheckpoint, device: str) -> Iterator[Contender]:
    """The reference in eager mode, with its default attention; pixels are normalised beforehand."""
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        model = copy.deepcopy(checkpoint.model).to(device, dtype)
        yield Contender(f"transformers {name}", name, _torch_call(model, device, dtype))


def compiled_contenders(
    checkpoint: ReferenceCheckpoint, device: str, batch: int
) -> Iterator[Contender]:
    """Ours with SIGLIP_COMPILE=on, and the reference compiled; bfloat16.

    The first is compiled for `batch` images at most and for all buckets below, the second when
    first run: with CUDA graphs as ours, or with frozen weights on the CPU.
    """
    embedder = load_embedder(str(checkpoint.folder), device, "bfloat16", batch, compiled=True)
    yield Contender("ours compiled", "bfloat16", _our_call(embedder))
    on_cpu = device == "cpu"
    torch._inductor.config.freezing = on_cpu
    model = copy.deepcopy(checkpoint.model).to(device, torch.bfloat16)
    compiled: Any = torch.compile(model, mode=None if on_cpu else "reduce-overhead")
    yield Contender(
        "transformers compiled", "bfloat16", _torch_call(compiled, device, torch.bfloat16)
    )


def has_openvino() -> bool:
    """Tell whether OpenVINO can be compared with."""
    return importlib.util.find_spec("openvino") is not None


def openvino_contenders(checkpoint: ReferenceCheckpoint) -> Iterator[Contender]:
    """OpenVINO's CPU plugin on the reference, converted here, with a fixed shape as it likes it."""
    for dtype, hint in (("bfloat16", "bf16"), ("float32", "f32")):
        yield Contender(f"OpenVINO {dtype}", dtype, _openvino_call(checkpoint.model, hint))


def _our_call(embedder: Embedder) -> Prepare:
    return lambda pixels: lambda: embedder.embed(pixels).pooled


def _normalized(pixels: UInt8Array) -> torch.Tensor:
    return SiglipImageProcessor().normalize(torch.from_numpy(pixels))


def _torch_call(model: Any, device: str, dtype: torch.dtype) -> Prepare:
    def prepare(pixels: UInt8Array) -> Call:
        pixel_values = _normalized(pixels).to(dtype)
        if device != "cpu":
            pixel_values = pixel_values.pin_memory()  # the way up is timed, at its best

        # no_grad: torch.compile cannot freeze weights under inference_mode
        @torch.no_grad()
        def call() -> Float32Array:
            inputs = pixel_values.to(device, non_blocking=True)
            pooled: Float32Array = model(inputs).pooler_output.float().cpu().numpy()
            return pooled

        return call

    return prepare


class _Pooled(torch.nn.Module):
    """The reference with a tensor for an answer, which is what converters understand."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        pooled: torch.Tensor = self.model(pixel_values).pooler_output
        return pooled


def _openvino_call(model: Any, precision: str) -> Prepare:
    # Its converter would report usage over the network; without this package it does not.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # None bars the import
    import openvino  # an optional peer

    def prepare(pixels: UInt8Array) -> Call:
        pixel_values = _normalized(pixels)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the shape is fixed, and tracing warns of just that
            converted = openvino.convert_model(
                _Pooled(model), example_input=pixel_values, input=[tuple(pixel_values.shape)]
            )
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",  # one request at a time on all cores, as the others
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        compiled = openvino.Core().compile_model(converted, "CPU", settings)
        inputs = pixel_values.numpy()
        return lambda: np.asarray(compiled(inputs)[0])

    return prepare
