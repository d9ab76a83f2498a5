"""What to compute on: `auto` resolved, the impossible refused, and what devices raise explained."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import structlog
import torch

from app.cores import count_cores
from app.engine.protocol import DeviceLostError, DeviceOutOfMemoryError, StartError

_log = structlog.get_logger(__name__)

# cudaError_t of the CUDA runtime: of pinned host memory too, which no allocator of torch retries.
_CUDA_ERROR_MEMORY_ALLOCATION = 2
_OUT_OF_MEMORY_WORDS = (
    "can't allocate memory",  # the CPU's allocator
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # what cublasCreate says on a card that is nearly full
)


# What a driver puts there for this machine, or a container runtime for this container: the device
# that all programs open first, and on Windows' subsystem for Linux the one that stands for it.
_NVIDIA_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
# In a smaller model the threads' meeting after each step takes longer than the step.
_FEWEST_PARALLEL_WEIGHTS = 5_000_000
# NVIDIA's container images set it, and matrix products in float32 then keep 10 bits of 23.
_TF32_OVERRIDE = "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"


def pick_device(name: str, drivers: Sequence[Path] = _NVIDIA_DRIVERS) -> torch.device:
    """Resolve `auto`, and see that the device is there; raises `StartError`."""
    if name == "auto":
        name = "cuda" if _cuda_is_available(drivers) else "cpu"
    try:
        device = torch.device(name)
        probe = torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise StartError(f"SIGLIP_DEVICE={name} cannot be used on this machine") from error
    return probe.device if device.type == "cuda" else device  # with its number


def _cuda_is_available(drivers: Sequence[Path]) -> bool:
    """Ask PyTorch; where it finds no device that the machine seems to have, log why."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    # PyTorch warns of a driver that is too old, say.
    reason = " ".join(" ".join(str(warning.message) for warning in caught).split())
    driver = next((driver for driver in drivers if driver.exists()), None)
    if not available and driver is not None:
        _log.warning(
            "NVIDIA GPU NOT USED: SIGLIP_DEVICE=auto takes the CPU",
            driver=str(driver),
            reason=reason or _why_no_cuda(),
        )
    elif reason:
        _log.warning("PyTorch warns of CUDA", reason=reason)
    return available


def _why_no_cuda() -> str:
    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} is built without CUDA"
    return f"PyTorch {torch.__version__}, for CUDA {torch.version.cuda}, finds no device"


def configure_device(device: torch.device) -> None:
    """Choose, once in a process, how a device computes, or how many cores do."""
    if device.type == "cpu":
        torch.set_num_threads(min(torch.get_num_threads(), count_cores()))
    if device.type == "cuda":
        # cuDNN's attention plans anew for every shape in every thread; flash attention does not.
        torch.backends.cuda.enable_cudnn_sdp(False)
        _keep_all_digits()


def limit_threads(weights: int) -> None:
    """Have one thread compute in the whole process where its model has few weights."""
    if weights < _FEWEST_PARALLEL_WEIGHTS:
        torch.set_num_threads(1)


def _keep_all_digits() -> None:
    """Have float32 be float32, and sums of products be summed in it, whatever the dtype."""
    if os.environ.get(_TF32_OVERRIDE, "0") not in ("", "0"):
        _log.warning("TF32 stays off: float32 means all of its digits", ignored=_TF32_OVERRIDE)
    matmul = torch.backends.cuda.matmul
    # Of the two ways to say so, the one that leaves both in agreement: torch's compiler asks by
    # this one, which raises once they differ.
    matmul.allow_tf32 = False
    matmul.allow_fp16_accumulation = False
    matmul.allow_fp16_reduced_precision_reduction = False
    matmul.allow_bf16_reduced_precision_reduction = False


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
