"""Text parity with transformers at the published widths, from file to vector and to logits.

Two layers each: a deeper tower only repeats them. The bounds are those that the project promises in
float32.
"""

from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from model import Siglip2Model, Siglip2TextModel, SiglipModel, SiglipTextModel
from tests.reference import relative_difference
from tests.text_reference import (
    Generation,
    draw_input_ids,
    write_full_checkpoint,
    write_text_checkpoint,
)

MAX_RELATIVE_DIFFERENCE = 2e-5
MAX_LOGIT_DIFFERENCE = 1e-4
SIZES: dict[str, dict[str, Any]] = {
    "base": {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
    "large": {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096},
    "so400m": {"hidden_size": 1152, "num_attention_heads": 16, "intermediate_size": 4304},
}
TEXT_MODELS: dict[Generation, Any] = {"siglip": SiglipTextModel, "siglip2": Siglip2TextModel}
Layout = Literal["flat", "prefixed", "sharded"]


@pytest.mark.parametrize("layout", ["flat", "prefixed", "sharded"])
@pytest.mark.parametrize("positions", [16, 64])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("generation", ["siglip", "siglip2"])
@torch.inference_mode()
def test_text_vectors_equal_the_references(
    generation: Generation, size: str, positions: int, layout: Layout, tmp_path: Path
) -> None:
    reference = write_text_checkpoint(
        tmp_path,
        generation,
        keys="flat" if layout == "sharded" else layout,
        max_shard_size="20MB" if layout == "sharded" else "50GB",
        **SIZES[size],
        vocab_size=500,
        max_position_embeddings=positions,
        projection_size=96,
    )
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (layout == "sharded")
    ids = draw_input_ids(reference.model.config, texts=4)

    model = TEXT_MODELS[generation].from_pretrained(tmp_path)
    ours, theirs = model(ids), reference.model(ids)

    assert ours.pooler_output.shape == (4, 96)
    for name in ("last_hidden_state", "pooler_output"):
        difference = relative_difference(getattr(ours, name), getattr(theirs, name))
        assert difference <= MAX_RELATIVE_DIFFERENCE
    alone = torch.cat([model(text[None]).pooler_output for text in ids])
    assert relative_difference(alone, theirs.pooler_output) <= MAX_RELATIVE_DIFFERENCE


@pytest.mark.parametrize("size", SIZES)
@torch.inference_mode()
def test_logits_and_probabilities_equal_the_references(size: str, tmp_path: Path) -> None:
    vision = SIZES[size] | {"image_size": 96, "patch_size": 16}
    whole = write_full_checkpoint(
        tmp_path,
        "siglip",
        vision=vision,
        vocab_size=500,
        max_position_embeddings=64,
        projection_size=vision["hidden_size"],
    )
    pixels = torch.rand(3, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    inputs = {"pixel_values": pixels, "input_ids": draw_input_ids(whole.model.config.text_config)}
    _assert_same_logits(SiglipModel.from_pretrained(tmp_path)(**inputs), whole.model(**inputs))


@torch.inference_mode()
def test_naflex_logits_and_probabilities_equal_the_references(tmp_path: Path) -> None:
    whole = write_full_checkpoint(
        tmp_path, "siglip2", vision=SIZES["base"], **SIZES["large"] | {"projection_size": 768}
    )
    grids = torch.tensor([[4, 5], [2, 7], [1, 1]])
    mask = (torch.arange(20) < grids.prod(1, keepdim=True)).int()
    patches = torch.rand(3, 20, 192, generator=torch.Generator().manual_seed(0)) * 2 - 1
    inputs = {
        "pixel_values": patches * mask[..., None],
        "pixel_attention_mask": mask,
        "spatial_shapes": grids,
        "input_ids": draw_input_ids(whole.model.config.text_config),
    }
    _assert_same_logits(Siglip2Model.from_pretrained(tmp_path)(**inputs), whole.model(**inputs))


def _assert_same_logits(ours: Any, theirs: Any) -> None:
    for name in ("logits_per_image", "logits_per_text"):
        logits, expected = getattr(ours, name), getattr(theirs, name)
        torch.testing.assert_close(logits, expected, rtol=0, atol=MAX_LOGIT_DIFFERENCE)
        assert expected.std() > 1e-2  # or a mistake would hardly show
        torch.testing.assert_close(
            logits.sigmoid(), expected.sigmoid(), rtol=0, atol=MAX_LOGIT_DIFFERENCE
        )
