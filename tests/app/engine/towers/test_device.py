"""What devices are asked for and what they say, told from the errors that torch raises."""

from collections.abc import Iterator

import pytest
import torch

from app.engine.protocol import DeviceLostError, DeviceOutOfMemoryError, StartError
from app.engine.towers.device import configure_device, explain_device_errors, pick_dtype

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


@pytest.mark.parametrize(
    ("instruction_sets", "dtype"),
    [
        ((), torch.float32),
        (("avx2",), torch.float32),
        (("avx2", "avx512_f", "avx512_vnni"), torch.float32),
        (("avx512_bf16",), torch.bfloat16),
        (("amx_bf16",), torch.bfloat16),
        (("amx_int8", "amx_tile"), torch.float32),
        (("avx512_bf16", "amx_bf16"), torch.bfloat16),
    ],
)
def test_auto_is_bfloat16_where_the_processor_computes_it(
    monkeypatch: pytest.MonkeyPatch, instruction_sets: tuple[str, ...], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: dict.fromkeys(instruction_sets, True)
    )

    assert pick_dtype("auto", torch.device("cpu")) == dtype
    assert pick_dtype("float32", torch.device("cpu")) == torch.float32


def test_an_instruction_set_that_is_named_and_not_there_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    absent = {"avx512_bf16": False, "amx_bf16": False, "avx512_vnni": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: absent)

    assert pick_dtype("auto", torch.device("cpu")) == torch.float32
    with pytest.raises(StartError):
        pick_dtype("int8", torch.device("cpu"))


def test_int8_needs_its_own_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_vnni": True})

    assert pick_dtype("int8", torch.device("cpu")) == torch.int8
    with pytest.raises(StartError):
        pick_dtype("int8", torch.device("cuda"))


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_auto_on_cuda_goes_by_the_device_and_not_by_the_processor(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})

    assert pick_dtype("auto", torch.device("cuda")) == dtype
