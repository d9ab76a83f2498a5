"""What to compute on, and in which precision: `auto` resolved, and the impossible refused."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from app.cores import count_cores
from app.engine.protocol import DeviceLostError, DeviceOutOfMemoryError, StartError

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
}

# cudaError_t of the CUDA runtime: of pinned host memory too, which no allocator of torch retries.
_CUDA_ERROR_MEMORY_ALLOCATION = 2
_OUT_OF_MEMORY_WORDS = (
    "can't allocate memory",  # the CPU's allocator
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def pick_device(name: str) -> torch.device:
    """Resolve `auto`, and see that the device is there; raises `StartError`."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise StartError(f"SIGLIP_DEVICE={name} cannot be used on this machine") from error
    return device


def configure_device(device: torch.device) -> None:
    """Choose, once in a process, how a device computes attention, or how many cores compute."""
    if device.type == "cpu":
        torch.set_num_threads(min(torch.get_num_threads(), count_cores()))
    if device.type == "cuda":
        # cuDNN's attention plans anew for every shape in every thread; flash attention does not.
        torch.backends.cuda.enable_cudnn_sdp(False)


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """Resolve `auto`: bfloat16 where the device computes it natively, else float32.

    int8 stands for 8-bit linear layers; raises `StartError` where they would be slow.
    """
    if name == "int8" and not _capabilities(device).get("avx512_vnni"):
        raise StartError("SIGLIP_DTYPE=int8 needs SIGLIP_DEVICE=cpu and avx512_vnni")
    if name != "auto":
        return _DTYPES[name]
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        capabilities = _capabilities(device)
        native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return torch.bfloat16 if native else torch.float32


@contextmanager
def explain_device_errors() -> Iterator[None]:
    """Turn what torch raises of a device into `DeviceOutOfMemoryError` and `DeviceLostError`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if _is_out_of_memory(error):
            raise DeviceOutOfMemoryError from error
        if isinstance(error, torch.AcceleratorError):
            raise DeviceLostError(str(error)) from error
        raise


def _is_out_of_memory(error: Exception) -> bool:
    """Tell it by type or code; and by words where torch raises a plain RuntimeError."""
    if isinstance(error, torch.AcceleratorError):
        # The type has no stub for its code. Any other code leaves the device's state unknown.
        return getattr(error, "error_code", None) == _CUDA_ERROR_MEMORY_ALLOCATION
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        words in str(error) for words in _OUT_OF_MEMORY_WORDS
    )


def _capabilities(device: torch.device) -> Mapping[str, Any]:
    """Return the processor's instruction sets; of another device nothing is known."""
    return torch.cpu.get_capabilities() if device.type == "cpu" else {}
