"""What the processor can do, and oneDNN may: ONEDNN_MAX_CPU_ISA lets it use less."""

import os

import pytest
import torch

_WITHOUT_VNNI = {"SSE41", "AVX", "AVX2", "AVX512_CORE"}


def has_vnni() -> bool:
    """Tell whether 8-bit layers multiply natively; else it takes a thousand times as long."""
    allowed = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() not in _WITHOUT_VNNI
    return allowed and bool(torch.cpu.get_capabilities().get("avx512_vnni"))


needs_vnni = pytest.mark.skipif(not has_vnni(), reason="no avx512_vnni here")
