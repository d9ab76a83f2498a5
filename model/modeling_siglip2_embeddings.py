"""Patch and position embeddings of the SigLIP 2 NaFlex vision tower."""

import math

import torch
from torch import nn

from model.config_siglip2 import Siglip2VisionConfig
from model.initialization import lecun_normal_, normal_
from model.input_checks import check_pixel_values, check_shape


class Siglip2VisionEmbeddings(nn.Module):
    """Patches, already cut out, to tokens; learned positions are resized to each image's grid.

    Dehghani et al. 2023 (NaViT), section 2; Tschannen et al. 2025, section 2.4.2; reference class
    `Siglip2VisionEmbeddings`.
    """

    def __init__(self, config: Siglip2VisionConfig) -> None:
        super().__init__()
        self.grid_size = config.grid_size
        self.patch_embedding = nn.Linear(
            config.num_channels * config.patch_size**2, config.hidden_size
        )
        positions = torch.empty(config.num_patches, config.hidden_size)
        self.position_embedding = nn.Embedding(
            config.num_patches, config.hidden_size, _weight=positions
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights from the reference's distribution."""
        lecun_normal_(self.patch_embedding.weight)
        nn.init.zeros_(self.patch_embedding.bias)
        std = 1 / math.sqrt(self.position_embedding.embedding_dim)
        normal_(self.position_embedding.weight, std=std)

    def resize_positional_embeddings(
        self, spatial_shapes: torch.Tensor, max_length: int
    ) -> torch.Tensor:
        """Make positions for each image's grid: (batch, 2) -> (batch, max_length, hidden).

        Padding gets an image's first position, as in the reference method of the same name. Raises
        `ValueError` for a grid of more than `max_length` patches.
        """
        positions = []
        for height, width in spatial_shapes.tolist():
            if not 0 < height * width <= max_length:
                raise ValueError(f"{height}x{width} patches do not fit into {max_length}")
            own = resize_positions(self.position_embedding.weight, (height, width))
            padding = own[:1].expand(max_length - height * width, -1)
            positions.append(torch.cat([own, padding]))
        return torch.stack(positions).to(self.position_embedding.weight.dtype)

    def forward(self, pixel_values: torch.Tensor, spatial_shapes: torch.Tensor) -> torch.Tensor:
        """Embed patches: (batch, max_length, patch * patch * channels) -> (.., hidden).

        `spatial_shapes` are rows and columns of patches: (batch, 2). Raises `TypeError` or
        `ValueError` for shapes that do not fit, and for patches that are not normalised.
        """
        check_pixel_values(pixel_values, "batch", "patches", self.patch_embedding.in_features)
        check_shape("spatial_shapes", spatial_shapes, pixel_values.shape[0], 2)
        patches = self.patch_embedding(pixel_values.to(self.patch_embedding.weight.dtype))
        return patches + self.resize_positional_embeddings(spatial_shapes, pixel_values.shape[1])


def resize_positions(table: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Resample a square of positions to another grid: (positions, hidden) -> (rows * columns, ..).

    Bilinear with antialiasing; in float32, since the CPU can do it in nothing smaller.
    """
    side = math.isqrt(len(table))
    square = table.float().T.reshape(1, -1, side, side)  # (1, hidden, side, side)
    resized = nn.functional.interpolate(
        square, size=grid, mode="bilinear", align_corners=False, antialias=True
    )  # (1, hidden, rows, columns)
    return resized[0].flatten(1).T
