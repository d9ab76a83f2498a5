"""Stage 1: what the machine is. Figures without these facts are worth nothing."""

import importlib.util
import os
import shutil
import subprocess

import torch

from benchmarks.gpu.stage import Plan, Results
from benchmarks.report import describe_machine

_VARIABLES = ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "NVIDIA_TF32_OVERRIDE", "CUDA_VISIBLE_DEVICES")
_SMI = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total,power.limit,mig.mode.current")


def measure(plan: Plan, results: Results) -> None:
    """Note the machine, and what of the software could change what a device computes."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    facts: dict[str, object] = {
        **describe_machine(),
        "cuda of torch": torch.version.cuda,
        "cudnn": cudnn.version(),  # type: ignore[no-untyped-call] # of torch
        "TF32 of products": matmul.allow_tf32,
        "TF32 of cuDNN": cudnn.allow_tf32,
        "float16 reduced": matmul.allow_fp16_reduced_precision_reduction,
        "bfloat16 reduced": matmul.allow_bf16_reduced_precision_reduction,
        "C compiler": shutil.which("gcc") or shutil.which("cc") or "none",
        "triton": importlib.util.find_spec("triton") is not None,
        "transformers": importlib.util.find_spec("transformers") is not None,
        **{name: os.environ.get(name, "not set") for name in _VARIABLES},
    }
    if plan.on_cuda:
        facts |= _card_facts(plan.torch_device)
    with results.table("machine") as add:
        for name, value in facts.items():
            add({"fact": name, "": str(value)})
    if shutil.which(_SMI[0]):
        with results.attempt("nvidia-smi"), results.table("nvidia-smi") as add:
            told = subprocess.run(
                [*_SMI, "--format=csv,noheader"], capture_output=True, text=True, check=True
            )
            for line in told.stdout.splitlines():
                add({"": line})
    else:
        results.skip("nvidia-smi", "it is not installed")


def _card_facts(device: torch.device) -> dict[str, object]:
    properties = torch.cuda.get_device_properties(device)
    return {
        "card": properties.name,
        "compute capability": f"{properties.major}.{properties.minor}",
        "memory GiB": round(properties.total_memory / 2**30, 1),
        "multiprocessors": properties.multi_processor_count,
    }
