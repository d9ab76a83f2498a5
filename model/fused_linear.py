"""Linear layers for inference, with the activation computed while the result is in cache."""

import copy
from typing import TypeVar

import torch
from torch import nn

from model.fused_cuda import GeluEpilogueLinear, has_gelu_epilogue
from model.int8_linear import Int8Linear

Module = TypeVar("Module", bound=nn.Module)


class PlainLinear(nn.Module):
    """A linear layer with optional activation, or an optional residual added to the result."""

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor, activation: nn.Module | None
    ) -> None:
        super().__init__()
        self.weight = nn.Buffer(weight)
        self.bias = nn.Buffer(bias)
        self.activation = activation

    def forward(self, inputs: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """(..., in) -> (..., out)."""
        outputs = nn.functional.linear(inputs, self.weight, self.bias)
        if self.activation is not None:
            outputs = self.activation(outputs)
        return outputs if residual is None else outputs + residual


class OneDnnLinear(nn.Module):
    """`PlainLinear` by oneDNN: a prepacked weight, and activation or residual in the same pass.

    Uses the operators that torch.compile's own freezing emits on the CPU.
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor, activation: nn.Module | None
    ) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        self.bias = bias
        self.activation = "none" if activation is None else "gelu"
        self.algorithm = activation.approximate if isinstance(activation, nn.GELU) else ""

    def forward(self, inputs: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """(..., in) -> (..., out)."""
        linear = torch.ops.mkldnn._linear_pointwise
        outputs: torch.Tensor
        if residual is None:
            outputs = linear(inputs, self.weight, self.bias, self.activation, [], self.algorithm)
        else:
            outputs = linear.binary(inputs, residual, self.weight, self.bias, "add")
        return outputs


def fused_linear(
    weight: torch.Tensor,
    bias: torch.Tensor,
    device: torch.device,
    dtype: torch.dtype,
    activation: nn.Module | None = None,
    *,
    compilable: bool = False,
) -> nn.Module:
    """Build the fastest linear layer that the device offers; `activation` is a GELU or nothing.

    Prepacked weights are no tensors that a compiler can read: `compilable` ones stay plain.
    """
    if dtype == torch.int8:
        return Int8Linear(weight.detach(), bias.detach(), activation)
    # Copies, even of what has the dtype already: a view would keep the checkpoint's file in memory.
    weight, bias = (part.detach().to(device, dtype, copy=True) for part in (weight, bias))
    if not compilable and has_gelu_epilogue(device, activation):
        return GeluEpilogueLinear(weight, bias)
    prepacks = not compilable and device.type == "cpu" and _one_dnn_prepacks(dtype)
    return (OneDnnLinear if prepacks else PlainLinear)(weight, bias, activation)


def _one_dnn_prepacks(dtype: torch.dtype) -> bool:
    """Tell whether oneDNN stores weights of this dtype in its own layout on this processor."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def copy_to(module: Module, device: torch.device, dtype: torch.dtype) -> Module:
    """Copy a module to a device and dtype, and leave the original alone."""
    return copy.deepcopy(module).to(device, dtype).requires_grad_(False)
