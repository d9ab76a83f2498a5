"""What devices are asked for and what they say, told from the errors that torch raises."""

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from structlog.testing import capture_logs

from app.engine.protocol import DeviceLostError, DeviceOutOfMemoryError, StartError
from app.engine.towers.device import configure_device, explain_device_errors, pick_device

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
def _settings_as_they_were() -> Iterator[None]:
    """Undo what is set for the whole process."""
    matmul = torch.backends.cuda.matmul
    names = (
        "allow_tf32",
        "allow_fp16_accumulation",
        "allow_fp16_reduced_precision_reduction",
        "allow_bf16_reduced_precision_reduction",
    )
    enabled, were = cudnn_is_enabled(), {name: getattr(matmul, name) for name in names}
    torch.backends.cuda.enable_cudnn_sdp(True)
    yield
    torch.backends.cuda.enable_cudnn_sdp(enabled)
    for name, value in were.items():
        setattr(matmul, name, value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError(
            "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"
        ),
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


@pytest.mark.usefixtures("_settings_as_they_were")
def test_attention_of_cudnn_is_for_nobody_on_cuda() -> None:
    configure_device(torch.device("cpu"))
    assert cudnn_is_enabled()

    configure_device(torch.device("cuda"))
    assert not cudnn_is_enabled()


# What NVIDIA's container images ask for is read where torch is imported: a process of its own.
ASK_FOR_TF32 = """
import warnings
warnings.simplefilter("error")
import torch
from app.engine.towers.device import configure_device
matmul = torch.backends.cuda.matmul
before = matmul.allow_tf32
configure_device(torch.device("cuda"))
print(before, matmul.allow_tf32, matmul.fp32_precision, torch.get_float32_matmul_precision())
"""


def test_float32_stays_float32_whatever_the_container_asks_for() -> None:
    result = subprocess.run(
        [sys.executable, "-c", ASK_FOR_TF32],
        env=os.environ | {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )

    assert "TF32 stays off" in result.stdout
    assert result.stdout.splitlines()[-1] == "True False ieee highest"


@pytest.mark.usefixtures("_settings_as_they_were")
def test_sums_of_products_are_summed_in_float32_on_cuda() -> None:
    matmul = torch.backends.cuda.matmul
    matmul.allow_fp16_reduced_precision_reduction = True
    matmul.allow_bf16_reduced_precision_reduction = True

    configure_device(torch.device("cuda"))

    assert not matmul.allow_fp16_reduced_precision_reduction
    assert not matmul.allow_bf16_reduced_precision_reduction
    assert not matmul.allow_fp16_accumulation


@pytest.mark.parametrize("has_driver", [True, False])
def test_a_gpu_that_is_there_and_not_used_is_told_loudly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_driver: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    driver = tmp_path / "nvidiactl"
    if has_driver:
        driver.touch()

    with capture_logs() as logs:
        assert pick_device("auto", [driver]) == torch.device("cpu")

    told = [log["reason"] for log in logs if "GPU NOT USED" in log["event"]]
    assert len(told) == has_driver
    assert all(torch.__version__ in reason for reason in told)


def test_the_reason_is_what_pytorch_warns_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_available() -> bool:
        warnings.warn("The NVIDIA driver on your system\nis too old", UserWarning, stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)

    with capture_logs() as logs:
        pick_device("auto", [tmp_path])

    assert [log["reason"] for log in logs] == ["The NVIDIA driver on your system is too old"]


def test_a_device_that_was_asked_for_by_name_is_used_or_the_start_fails() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(StartError, match="SIGLIP_DEVICE=cuda:99"):
        pick_device("cuda:99")
