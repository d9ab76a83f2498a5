"""Patch and position embeddings of the SigLIP vision tower."""

import math

import torch
from torch import nn

from model.config import SiglipVisionConfig
from model.initialization import lecun_normal_, normal_
from model.input_checks import check_pixel_values


class SiglipVisionEmbeddings(nn.Module):
    """Pixels to patch tokens: one convolution per patch, plus a learned position each.

    There is no class token. Dosovitskiy et al. 2021, section 3.1; reference class
    `SiglipVisionEmbeddings`.
    """

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.grid_size = config.grid_size
        self.patch_embedding = nn.Conv2d(
            config.num_channels,
            config.hidden_size,
            kernel_size=config.patch_size,
            stride=config.patch_size,
        )
        positions = torch.empty(config.num_patches, config.hidden_size)
        self.position_embedding = nn.Embedding(
            config.num_patches, config.hidden_size, _weight=positions
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights from the reference's distribution."""
        lecun_normal_(self.patch_embedding.weight)
        nn.init.zeros_(self.patch_embedding.bias)  # type: ignore[arg-type] # this Conv2d has a bias
        std = 1 / math.sqrt(self.position_embedding.embedding_dim)
        normal_(self.position_embedding.weight, std=std)

    def interpolate_pos_encoding(self, height: int, width: int) -> torch.Tensor:
        """Resample the positions to an image of `height` x `width` pixels: -> (1, patches, hidden).

        Bicubic, without antialiasing, as the reference method of the same name.
        """
        table = self.position_embedding.weight.view(
            self.grid_size, self.grid_size, -1
        )  # (grid, grid, hidden)
        table = table.permute(2, 0, 1).unsqueeze(0)  # (1, hidden, grid, grid)
        grid = (height // self.patch_size, width // self.patch_size)
        table = nn.functional.interpolate(table, size=grid, mode="bicubic", align_corners=False)
        return table.flatten(2).transpose(1, 2)

    def forward(
        self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool = False
    ) -> torch.Tensor:
        """Embed images: (batch, channels, height, width) -> (batch, patches, hidden).

        Rows and columns beyond the last whole patch are not seen. Raises `TypeError` or
        `ValueError` for what is no batch of normalised images, and when there are no positions for
        the patch grid and `interpolate_pos_encoding` is off.
        """
        check_pixel_values(
            pixel_values, "batch", self.patch_embedding.in_channels, "height", "width"
        )
        height, width = pixel_values.shape[-2:]
        grid = (height // self.patch_size, width // self.patch_size)
        native = grid == (self.grid_size, self.grid_size)
        if not (native or interpolate_pos_encoding):
            side = self.grid_size * self.patch_size
            raise ValueError(
                f"{height}x{width} pixels make {grid[0]}x{grid[1]} patches, but positions are "
                f"learned for {side}x{side} pixels; resize, or set interpolate_pos_encoding"
            )
        patches = self.patch_embedding(
            pixel_values.to(self.patch_embedding.weight.dtype)
        )  # (batch, hidden, rows, columns)
        patches = patches.flatten(2).transpose(1, 2)  # (batch, patches, hidden)
        if native:
            return patches + self.position_embedding.weight
        return patches + self.interpolate_pos_encoding(height, width)
