"""The dtype that `auto` stands for, by processor and device, and by what the self-test says."""

from functools import partial

import pytest
import torch

from app.engine.protocol import SelfTestError, StartError
from app.engine.towers.dtypes import load_soundly, pick_dtypes


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

    assert pick_dtypes("auto", torch.device("cpu")) == [dtype]
    assert pick_dtypes("float32", torch.device("cpu")) == [torch.float32]


def test_an_instruction_set_that_is_named_and_not_there_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    absent = {"avx512_bf16": False, "amx_bf16": False, "avx512_vnni": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: absent)

    assert pick_dtypes("auto", torch.device("cpu")) == [torch.float32]
    with pytest.raises(StartError):
        pick_dtypes("int8", torch.device("cpu"))


def test_int8_needs_its_own_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_vnni": True})

    assert pick_dtypes("int8", torch.device("cpu")) == [torch.int8]
    with pytest.raises(StartError):
        pick_dtypes("int8", torch.device("cuda"))


@pytest.mark.parametrize(
    ("capability", "dtypes"),
    [
        ((6, 1), [torch.float32]),
        ((7, 5), [torch.float16, torch.float32]),
        ((8, 0), [torch.bfloat16]),
        ((9, 0), [torch.bfloat16]),
    ],
)
def test_auto_on_cuda_goes_by_the_device_and_not_by_the_processor(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtypes: list[torch.dtype]
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})

    assert pick_dtypes("auto", torch.device("cuda")) == dtypes
    assert pick_dtypes("bfloat16", torch.device("cuda")) == [torch.bfloat16]


def load_where(sound: torch.dtype, dtype: torch.dtype) -> torch.dtype:
    """Stand in for a model that overflows in all dtypes but one."""
    if dtype != sound:
        raise SelfTestError("self-test failed: cosine nan to the float32 reference")
    return dtype


@pytest.mark.parametrize("sound", [torch.float16, torch.float32])
def test_the_first_dtype_whose_self_test_holds_is_served(sound: torch.dtype) -> None:
    dtypes = [torch.float16, torch.float32]
    assert load_soundly(dtypes, partial(load_where, sound)) == sound


def test_a_start_fails_when_the_self_test_holds_in_none() -> None:
    with pytest.raises(SelfTestError):
        load_soundly([torch.float16, torch.float32], partial(load_where, torch.bfloat16))


def test_only_a_failed_self_test_is_a_reason_to_try_another_dtype() -> None:
    tried: list[torch.dtype] = []

    def load(dtype: torch.dtype) -> None:
        tried.append(dtype)
        raise StartError("no such folder")

    with pytest.raises(StartError, match="no such folder"):
        load_soundly([torch.float16, torch.float32], load)
    assert tried == [torch.float16]
