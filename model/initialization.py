"""Initialisers of the reference that torch.nn.init lacks, or has in a slower form."""

import math

import torch
from torch import nn

# Standard deviation of a unit normal cut at two of them; dividing by it restores the variance.
_TRUNCATED_STD = 0.87962566103423978


def lecun_normal_(weight: torch.Tensor) -> torch.Tensor:
    """Fill `weight` in place with a truncated normal of variance 1 / fan_in, and return it.

    LeCun et al. 1998, section 4.6; Flax's default for dense and convolution kernels.
    """
    fan_in = weight[0].numel()
    std = 1 / math.sqrt(fan_in) / _TRUNCATED_STD
    return nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def normal_(weight: torch.Tensor, *, std: float) -> torch.Tensor:
    """Fill `weight` in place with a normal of mean 0, and return it; meta tensors stay as they are.

    torch would import its whole compiler, which takes a second, to fill a tensor without memory.
    """
    return weight if weight.is_meta else nn.init.normal_(weight, std=std)
