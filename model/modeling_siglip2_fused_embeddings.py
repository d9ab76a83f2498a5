"""Image normalisation and NaFlex patch embedding in one linear layer: uint8 patches to tokens."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import nn

from model.fused_linear import fused_linear
from model.fused_normalization import CENTRE, fold_normalization
from model.image_processing_siglip2 import Siglip2ImageProcessor
from model.modeling_siglip2_embeddings import Siglip2VisionEmbeddings, resize_positions

# Photographs come in a few aspect ratios; resizing takes milliseconds on the CPU.
_REMEMBERED_GRIDS = 32


class FusedSiglip2Embeddings(nn.Module):
    """`Siglip2ImageProcessor.normalize` and `Siglip2VisionEmbeddings` for inference."""

    def __init__(
        self,
        embeddings: Siglip2VisionEmbeddings,
        processor: Siglip2ImageProcessor,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        linear = embeddings.patch_embedding
        kernel = linear.weight.view(linear.out_features, processor.patch_size**2, -1)
        weight, bias = fold_normalization(kernel, linear.bias, processor)
        self.dtype = dtype
        self.patch_embedding = fused_linear(weight, bias, device, dtype)
        self.position_embedding = nn.Buffer(
            embeddings.position_embedding.weight.detach().to(device, torch.float32, copy=True)
        )
        # Around the table and not around a method: that would be a cycle, in which the weights wait
        # for the garbage collector.
        table = self.position_embedding

        @lru_cache(_REMEMBERED_GRIDS)
        def positions(grid: tuple[int, int]) -> torch.Tensor:
            return resize_positions(table, grid).to(dtype)

        self._positions = positions

    def forward(
        self, patches: torch.Tensor, spatial_shapes: Sequence[tuple[int, int]]
    ) -> torch.Tensor:
        """Embed packed patches: uint8 (patches, patch * patch * channels) -> (patches, hidden)."""
        positions = torch.cat([self._positions(grid) for grid in spatial_shapes])
        return self.patch_embedding(patches.to(self.dtype).sub_(CENTRE)) + positions
