"""In which precision to compute: `auto` resolved, and what would only be slow refused."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import structlog
import torch

from app.engine.protocol import SelfTestError, StartError

_log = structlog.get_logger(__name__)

Loaded = TypeVar("Loaded")

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
}


def pick_dtypes(name: str, device: torch.device) -> list[torch.dtype]:
    """Resolve `auto`: what to try, best first, until a self-test holds.

    That is bfloat16 where the device computes it natively; on CUDA devices that do not, float16
    before float32; else float32. int8 stands for 8-bit linear layers; raises `StartError` where
    they would be slow.
    """
    if name == "int8" and not _capabilities(device).get("avx512_vnni"):
        raise StartError("SIGLIP_DTYPE=int8 needs SIGLIP_DEVICE=cpu and avx512_vnni")
    if name != "auto":
        return [_DTYPES[name]]
    if device.type == "cuda":
        return _pick_cuda_dtypes(torch.cuda.get_device_capability(device))
    capabilities = _capabilities(device)
    native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return [torch.bfloat16 if native else torch.float32]


def _pick_cuda_dtypes(capability: tuple[int, int]) -> list[torch.dtype]:
    if capability >= (8, 0):
        return [torch.bfloat16]
    # From 7.0 on there are matrix units for float16. Its range is small: a model may overflow it.
    return [torch.float16, torch.float32] if capability >= (7, 0) else [torch.float32]


def load_soundly(dtypes: Sequence[torch.dtype], load: Callable[[torch.dtype], Loaded]) -> Loaded:
    """Load in the first dtype whose self-test holds; raises what `load` raises in the last."""
    *others, last = dtypes
    for dtype in others:
        try:
            return load(dtype)
        except SelfTestError as error:
            _log.warning("another dtype is tried", dtype=str(dtype), reason=str(error))
    return load(last)


def _capabilities(device: torch.device) -> Mapping[str, Any]:
    """Return the processor's instruction sets; of another device nothing is known."""
    return torch.cpu.get_capabilities() if device.type == "cpu" else {}
