"""NaFlex parity with transformers at the published widths, on photographs of several shapes.

Two layers each, from file to vector. The bounds are those that the project promises in float32.
"""

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import Siglip2VisionConfig

from model import Siglip2ImageProcessor, Siglip2VisionModel
from tests.naflex_reference import write_naflex_checkpoint
from tests.reference import relative_difference

MAX_RELATIVE_DIFFERENCE = 2e-5
MAX_PIXEL_DIFFERENCE = 1e-6
SIZES = {
    "base": {},
    "so400m": {"hidden_size": 1152, "num_attention_heads": 16, "intermediate_size": 4304},
}


@pytest.fixture(scope="module")
def mixed(photographs: list[Image.Image]) -> list[Image.Image]:
    """Photographs that are square, wide, tall, very wide, and smaller than the model's input."""
    astronaut, coffee, _, rocket = photographs
    return [
        astronaut,
        coffee,
        rocket.transpose(Image.Transpose.ROTATE_90),
        rocket.crop((0, 0, 600, 50)),
        astronaut.resize((40, 70)),
    ]


@pytest.mark.parametrize("size", SIZES)
@torch.inference_mode()
def test_outputs_equal_the_references(size: str, mixed: list[Image.Image], tmp_path: Path) -> None:
    config = Siglip2VisionConfig(**SIZES[size], num_hidden_layers=2)
    reference = write_naflex_checkpoint(tmp_path, config, max_num_patches=256)
    inputs = Siglip2ImageProcessor.from_pretrained(tmp_path)(mixed)
    theirs = reference.processor(mixed, return_tensors="pt")
    assert inputs.keys() == theirs.keys()
    for name, tensor in inputs.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=MAX_PIXEL_DIFFERENCE)

    ours = Siglip2VisionModel.from_pretrained(tmp_path)(inputs)
    expected = reference.model(**theirs)

    assert len(set(inputs.spatial_shapes.prod(1).tolist())) > 2
    for name in ("last_hidden_state", "pooler_output"):
        difference = relative_difference(getattr(ours, name), getattr(expected, name))
        assert difference <= MAX_RELATIVE_DIFFERENCE
