"""torch.export: one program for batches of every size."""

import pytest
import torch
from torch import nn
from torch.export import Dim, export

from model import (
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)


def lively(model: nn.Module) -> nn.Module:
    """Make biases count, so that a program which forgets one differs."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) / 20)
    return model


@pytest.mark.parametrize("strict", [False, True])
@torch.no_grad()
def test_a_tower_is_exported_for_every_batch_size(strict: bool) -> None:
    model = lively(SiglipVisionModel.from_random(SiglipVisionConfig.from_shape("tiny-patch8-32")))
    shapes = {"pixel_values": {0: Dim("batch", max=64)}}
    example = {"pixel_values": torch.rand(2, 3, 32, 32)}
    program = export(model, (), example, dynamic_shapes=shapes, strict=strict).module()
    for batch in (1, 2, 7):
        values = torch.rand(batch, 3, 32, 32, generator=torch.Generator().manual_seed(batch))
        expected, outputs = model(values), program(pixel_values=values)
        torch.testing.assert_close(outputs.last_hidden_state, expected.last_hidden_state)
        torch.testing.assert_close(outputs.pooler_output, expected.pooler_output)


class AfterEmbeddings(nn.Module):
    """What follows the embeddings of a NaFlex tower."""

    def __init__(self, model: Siglip2VisionModel) -> None:
        super().__init__()
        self.tower = model.vision_model

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(batch, patches, hidden) and (batch, patches) -> (batch, hidden)."""
        assert self.tower.head is not None
        encoded = self.tower.post_layernorm(self.tower.encoder(hidden_states, mask))
        pooled: torch.Tensor = self.tower.head(encoded, mask)
        return pooled


@torch.no_grad()
def test_of_a_naflex_tower_all_but_the_embeddings_is_exported() -> None:
    """Positions are resized to each image's grid, which is known only when it is there."""
    model = Siglip2VisionModel.from_random(Siglip2VisionConfig.from_shape("tiny-patch8-naflex"))
    lively(model)
    part, batch = AfterEmbeddings(model).eval(), Dim("batch", max=64)
    example = (torch.rand(2, 6, 64), torch.ones(2, 6, dtype=torch.bool))
    program = export(part, example, dynamic_shapes=({0: batch}, {0: batch})).module()
    grids = torch.tensor([[2, 3], [1, 4], [1, 1], [3, 2], [2, 2]])
    mask = torch.arange(6) < grids.prod(1, keepdim=True)
    values = torch.rand(5, 6, 192, generator=torch.Generator().manual_seed(1))
    pooled = program(model.vision_model.embeddings(values, grids), mask)
    torch.testing.assert_close(pooled, model(values, mask, grids).pooler_output)
