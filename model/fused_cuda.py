"""What CUDA devices compute in fewer passes over memory than layer by layer."""

import torch
from torch import nn


class GeluEpilogueLinear(nn.Module):
    """A linear layer and GELU, in its tanh form, while the result is still in registers.

    On CUDA the operator has that form whether or not cuBLAS can fuse it (aten/src/ATen/native/cuda/
    Blas.cpp). On a CPU it has the other form, without tanh: so it is for CUDA only.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        if weight.device.type == "cpu":
            raise ValueError("on a CPU this operator has GELU's other form")
        self.weight = nn.Buffer(weight)
        self.bias = nn.Buffer(bias)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out)."""
        rows = inputs.reshape(-1, inputs.shape[-1])
        outputs = torch._addmm_activation(self.bias, rows, self.weight.t(), use_gelu=True)
        return outputs.view(*inputs.shape[:-1], -1)


def has_gelu_epilogue(device: torch.device, activation: nn.Module | None) -> bool:
    """Tell whether `GeluEpilogueLinear` computes a linear layer with this activation."""
    is_tanh = isinstance(activation, nn.GELU) and activation.approximate == "tanh"
    return is_tanh and device.type == "cuda"
