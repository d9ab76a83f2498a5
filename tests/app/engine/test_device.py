"""What devices are asked for and what they say, told from the errors that torch raises."""

from collections.abc import Iterator

import pytest
import torch

from app.engine.device import configure_device, explain_device_errors
from app.engine.protocol import DeviceLostError, DeviceOutOfMemoryError

# cudaError_t
MEMORY_ALLOCATION, ILLEGAL_ADDRESS = 2, 700


def accelerator_error(code: int) -> torch.AcceleratorError:
    """Make the error as torch does: the code is an attribute."""
    error = torch.AcceleratorError(f"CUDA error {code}")
    error.error_code = code  # type: ignore[attr-defined] # torch sets it in C++
    return error


def cudnn_is_enabled() -> bool:
    """Tell whether attention may be cuDNN's."""
    return bool(torch.backends.cuda.cudnn_sdp_enabled())  # type: ignore[no-untyped-call] # of torch


@pytest.fixture
def _attention_as_it_was() -> Iterator[None]:
    """Undo what is set for the whole process."""
    enabled = cudnn_is_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    yield
    torch.backends.cuda.enable_cudnn_sdp(enabled)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        accelerator_error(MEMORY_ALLOCATION),
    ],
)
def test_any_lack_of_memory_is_one_error(error: Exception) -> None:
    with pytest.raises(DeviceOutOfMemoryError) as explained, explain_device_errors():
        raise error
    assert explained.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [accelerator_error(ILLEGAL_ADDRESS), torch.AcceleratorError("out of memory, or so")]
)
def test_any_other_error_of_the_accelerator_loses_the_device(error: Exception) -> None:
    with pytest.raises(DeviceLostError, match=str(error)), explain_device_errors():
        raise error


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes do not match"), ValueError("out of memory")]
)
def test_what_is_no_matter_of_the_device_stays_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, explain_device_errors():
        raise error
    assert raised.value is error


@pytest.mark.usefixtures("_attention_as_it_was")
def test_attention_of_cudnn_is_for_nobody_on_cuda() -> None:
    configure_device(torch.device("cpu"))
    assert cudnn_is_enabled()

    configure_device(torch.device("cuda"))
    assert not cudnn_is_enabled()
