"""What only CUDA computes: which layers it is for, as far as a machine without CUDA tells."""

import pytest
import torch
from torch import nn

from model.fused_cuda import GeluEpilogueLinear, has_gelu_epilogue

TANH, ERF = nn.GELU("tanh"), nn.GELU()
CUDA = torch.device("cuda")


@pytest.mark.parametrize("activation", [None, ERF])
def test_only_the_tanh_form_of_gelu_is_fused(activation: nn.Module | None) -> None:
    assert has_gelu_epilogue(CUDA, TANH)
    assert not has_gelu_epilogue(CUDA, activation)


@pytest.mark.parametrize("device", ["cpu", "mps", "meta"])
def test_only_cuda_has_it(device: str) -> None:
    assert not has_gelu_epilogue(torch.device(device), TANH)


def test_a_cpu_is_refused_for_there_the_operator_has_the_other_form() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, weight = (torch.randn(5, 16, generator=generator) for _ in range(2))
    bias = torch.randn(5, generator=generator)
    plain = nn.functional.linear(inputs, weight, bias)

    given = torch._addmm_activation(bias, inputs, weight.t(), use_gelu=True)

    torch.testing.assert_close(given, ERF(plain))
    assert not torch.allclose(given, TANH(plain), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="CPU"):
        GeluEpilogueLinear(weight, bias)


@pytest.mark.parametrize("shape", [(2, 3), (6,), (1,), ()])
def test_shapes_are_those_of_a_linear_layer(shape: tuple[int, ...]) -> None:
    linear = GeluEpilogueLinear(*(torch.empty(*own, device="meta") for own in ((24, 16), (24,))))
    assert linear(torch.empty(*shape, 16, device="meta")).shape == (*shape, 24)
