"""Linear layers in 8-bit integers, for processors that multiply those faster than bfloat16."""

import math

import torch
from torch import nn

# One less than a byte has: half a level is left at either end, so that rounding never leaves it.
_STEPS = 254
_LARGEST_WEIGHT = 127
_TINY = torch.finfo(torch.float32).tiny  # the least scale that can be divided by


class Int8Linear(nn.Module):
    """A linear layer with optional GELU: int8 weights, uint8 inputs, bfloat16 results.

    Weights have one scale for each output, symmetric. Inputs have one scale and zero point for each
    image, found on the way: a vector never depends on its neighbours in the batch. Inputs are
    unsigned because oneDNN takes signed ones through its reference kernel, which is a thousand
    times slower.
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor, activation: nn.Module | None
    ) -> None:
        super().__init__()
        weight = weight.float()
        self.scale = (weight.abs().amax(1) / _LARGEST_WEIGHT).clamp_min(_TINY)
        quantised = (weight / self.scale[:, None]).round().to(torch.int8)
        self.weight = torch.ops.onednn.qlinear_prepack(quantised, None)
        self.zero_point = torch.zeros(len(weight), dtype=torch.int32)
        self.bias = bias.to(torch.float32, copy=True)  # no view of the checkpoint's file
        self.activation = "none" if activation is None else "gelu"
        self.algorithm = activation.approximate if isinstance(activation, nn.GELU) else ""

    def forward(self, inputs: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, rows, in) -> (batch, rows, out), image by image, which also stays in cache."""
        batch, rows, _ = inputs.shape
        outputs = inputs.new_empty(batch, rows, len(self.bias))
        for image, result in zip(inputs, outputs, strict=True):
            result.copy_(self._multiply(image))
        return outputs if residual is None else outputs.add_(residual)

    def _multiply(self, inputs: torch.Tensor) -> torch.Tensor:
        """(rows, in) -> (rows, out)."""
        scale, zero_point = _range(inputs)
        if not math.isfinite(scale):  # overflow somewhere before: tell so instead of hiding it
            return inputs.new_full((len(inputs), len(self.bias)), math.nan)
        levels = inputs.float().mul_(1 / scale).add_(zero_point + 0.5)
        product: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            levels.to(torch.int32).to(torch.uint8),  # by way of int32 in half the time
            scale,
            zero_point,
            self.weight,
            self.scale,
            self.zero_point,
            self.bias,
            1.0,  # scale and zero point of the result, which is no integer
            0,
            torch.bfloat16,
            self.activation,
            [],
            self.algorithm,
        )
        return product


def _range(inputs: torch.Tensor) -> tuple[float, int]:
    """Return scale and zero point for which the bytes cover all inputs, and zero exactly."""
    low, high = (float(bound) for bound in torch.aminmax(inputs))
    scale = (max(high, 0.0) - min(low, 0.0)) / _STEPS
    if not math.isfinite(scale):
        return scale, 0
    if scale < _TINY:  # all zero, or nearly
        return 1.0, 0
    return scale, round(-min(low, 0.0) / scale)
