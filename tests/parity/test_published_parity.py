"""Every published shape, from a file that transformers wrote to its vectors.

One layer each, and one image: what differs between shapes are the sizes of everything. Deeper
towers, photographs and other layouts are in test_model_parity.py.
"""

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from transformers import SiglipVisionConfig as ReferenceConfig

from model import SiglipVisionModel
from model.published import PUBLISHED_MODELS
from tests.reference import build_vision_model, relative_difference, save_checkpoint

MAX_RELATIVE_DIFFERENCE = 2e-5

# Several models share a shape.
SHAPES = {
    model.shape: replace(model.config, num_hidden_layers=1)
    for model in PUBLISHED_MODELS
    if not model.shape.endswith("naflex")
}


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_a_published_shape_gives_the_references_vectors(shape: str, tmp_path: Path) -> None:
    config = SHAPES[shape]
    reference = build_vision_model(ReferenceConfig(**asdict(config)))
    save_checkpoint(reference, tmp_path / shape, sparse_config=True)
    side = config.image_size
    pixel_values = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1

    model = SiglipVisionModel.from_pretrained(tmp_path / shape)
    ours, theirs = model(pixel_values), reference(pixel_values)

    assert model.config == config
    assert ours.last_hidden_state.shape == (1, config.num_patches, config.hidden_size)
    for part in ("last_hidden_state", "pooler_output"):
        difference = relative_difference(getattr(ours, part), getattr(theirs, part))
        assert difference <= MAX_RELATIVE_DIFFERENCE
    shutil.rmtree(tmp_path / shape)  # the weights of all shapes are gigabytes
