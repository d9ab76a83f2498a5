"""Image normalisation folded into the patch embedding, so that raw pixels can go in."""

import torch

from model.image_processing_base import BaseImageProcessor

# Pixels minus this are exact in bfloat16, which has eight significant bits, and centred: a weight's
# rounding error is not multiplied by a large common value.
CENTRE = 128


def fold_normalization(
    weight: torch.Tensor, bias: torch.Tensor, processor: BaseImageProcessor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight and bias for pixels minus `CENTRE` instead of normalised ones, in float32.

    Both are affine. `weight` is (hidden, pixels, channels) and comes back (hidden, pixels *
    channels).
    """
    weight, std = weight.float(), torch.tensor(processor.image_std)
    scale = processor.rescale_factor / std
    shift = (CENTRE * processor.rescale_factor - torch.tensor(processor.image_mean)) / std
    return (weight * scale).flatten(1), bias.float() + (weight * shift).sum((1, 2))
