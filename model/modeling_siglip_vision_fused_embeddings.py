"""Image normalisation and patch embedding in one linear layer: uint8 pixels to tokens."""

import torch
from torch import nn

from model.fused_linear import fused_linear
from model.fused_normalization import CENTRE, fold_normalization
from model.image_processing_siglip import SiglipImageProcessor
from model.modeling_siglip_vision_embeddings import SiglipVisionEmbeddings


class FusedVisionEmbeddings(nn.Module):
    """`SiglipImageProcessor.normalize` and `SiglipVisionEmbeddings` for inference at native size.

    Both are affine, so rescaling, mean and standard deviation go into weight and bias.
    """

    def __init__(
        self,
        embeddings: SiglipVisionEmbeddings,
        processor: SiglipImageProcessor,
        device: torch.device,
        dtype: torch.dtype,
        *,
        compilable: bool = False,
    ) -> None:
        super().__init__()
        self.patch_size = embeddings.patch_size
        self.grid_size = embeddings.grid_size
        convolution = embeddings.patch_embedding
        assert convolution.bias is not None  # noqa: S101 # for the type checker: ours has one
        kernel = convolution.weight.permute(0, 2, 3, 1)  # (hidden, rows, columns, channels)
        weight, bias = fold_normalization(kernel.flatten(1, 2), convolution.bias, processor)
        self.patch_embedding = fused_linear(weight, bias, device, dtype, compilable=compilable)
        self.position_embedding = nn.Buffer(
            embeddings.position_embedding.weight.detach().to(device, dtype, copy=True)
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed images: uint8 (batch, height, width, channels) -> (batch, patches, hidden)."""
        batch, grid, patch = len(pixels), self.grid_size, self.patch_size
        whole = pixels[:, : grid * patch, : grid * patch]  # no partial patches
        patches = whole.reshape(batch, grid, patch, grid, patch, -1).transpose(2, 3)
        patches = patches.reshape(batch, grid * grid, -1).to(self.position_embedding.dtype)
        return self.patch_embedding(patches.sub_(CENTRE)) + self.position_embedding
