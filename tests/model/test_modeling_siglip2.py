"""The NaFlex tower, part by part and whole, against transformers."""

from pathlib import Path

import pytest
import torch
from transformers import Siglip2VisionModel as ReferenceModel
from transformers.masking_utils import create_bidirectional_mask

from model import (
    CheckpointError,
    ConfigError,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipVisionModel,
)
from model.modeling_siglip2_embeddings import resize_positions
from model.published import PUBLISHED_MODELS, PublishedModel, count_parameters
from tests.naflex_reference import build_naflex_model, tiny_naflex_config, write_naflex_checkpoint
from tests.reference import ReferenceCheckpoint, edit_tensors, relative_difference

MAX_RELATIVE_DIFFERENCE = 2e-5
GRIDS = [(4, 4), (2, 7), (5, 3), (1, 18), (1, 1)]
LENGTH = 18


@pytest.fixture(scope="module")
def reference() -> ReferenceModel:
    """The tiny reference tower; to be read only."""
    return build_naflex_model(tiny_naflex_config())


@pytest.fixture(scope="module")
def model(reference: ReferenceModel) -> Siglip2VisionModel:
    """Our tower with its weights."""
    config = Siglip2VisionConfig.from_dict(reference.config.to_dict())
    own = Siglip2VisionModel(config).eval()
    own.vision_model.load_state_dict(reference.state_dict())
    return own


@pytest.fixture(scope="module")
def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random patches of images of five grids, padded with 0; their mask; their grids."""
    generator = torch.Generator().manual_seed(1)
    values = torch.rand(len(GRIDS), LENGTH, 8 * 8 * 3, generator=generator) * 2 - 1
    mask = torch.zeros(len(GRIDS), LENGTH, dtype=torch.int32)
    for row, (height, width) in enumerate(GRIDS):
        mask[row, : height * width] = 1
    return values * mask[..., None], mask, torch.tensor(GRIDS)


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    """Random tokens as they go from part to part: (5, 18, 32)."""
    return torch.randn(len(GRIDS), LENGTH, 32, generator=torch.Generator().manual_seed(2))


@torch.inference_mode()
def test_embeddings_equal_the_references(
    model: Siglip2VisionModel,
    reference: ReferenceModel,
    inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    values, _, grids = inputs
    ours = model.vision_model.embeddings(values, grids)
    assert relative_difference(ours, reference.embeddings(values, grids)) <= MAX_RELATIVE_DIFFERENCE


def test_positions_of_the_learned_grid_stay_as_they_are() -> None:
    table = torch.randn(16, 32)
    torch.testing.assert_close(resize_positions(table, (4, 4)), table)


@pytest.mark.parametrize("part", ["self_attn", "layer"])
@torch.inference_mode()
def test_masked_parts_equal_the_references(
    model: Siglip2VisionModel,
    reference: ReferenceModel,
    inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    tokens: torch.Tensor,
    part: str,
) -> None:
    mask = inputs[1]
    reference_mask = create_bidirectional_mask(
        config=reference.config, inputs_embeds=tokens, attention_mask=mask
    )
    own_layer, layer = model.vision_model.encoder.layers[0], reference.encoder.layers[0]
    if part == "self_attn":
        ours = own_layer.self_attn(tokens, mask.bool())  # type: ignore[operator]
        theirs, _ = layer.self_attn(tokens, reference_mask)
    else:
        ours, theirs = own_layer(tokens, mask.bool()), layer(tokens, reference_mask)
    assert relative_difference(ours, theirs) <= MAX_RELATIVE_DIFFERENCE


@torch.inference_mode()
def test_the_pooling_head_equals_the_references(
    model: Siglip2VisionModel,
    reference: ReferenceModel,
    inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    tokens: torch.Tensor,
) -> None:
    head = model.vision_model.head
    assert head is not None
    ours = head(tokens, inputs[1].bool())
    assert relative_difference(ours, reference.head(tokens, inputs[1])) <= MAX_RELATIVE_DIFFERENCE


@torch.inference_mode()
def test_outputs_equal_the_references_also_in_rows_of_padding(
    model: Siglip2VisionModel,
    reference: ReferenceModel,
    inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    ours, theirs = model(*inputs), reference(*inputs)
    for name in ("last_hidden_state", "pooler_output"):
        difference = relative_difference(getattr(ours, name), getattr(theirs, name))
        assert difference <= MAX_RELATIVE_DIFFERENCE


@torch.inference_mode()
def test_padding_changes_nothing(
    model: Siglip2VisionModel, inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    together = model(*inputs)
    for row, (height, width) in enumerate(GRIDS):
        length = height * width
        values, mask, grid = (part[row : row + 1] for part in inputs)
        alone = model(values[:, :length], mask[:, :length], grid)
        torch.testing.assert_close(
            together.last_hidden_state[row, :length], alone.last_hidden_state[0]
        )
        torch.testing.assert_close(together.pooler_output[row], alone.pooler_output[0])


@torch.inference_mode()
def test_what_stands_in_the_padding_changes_nothing(
    model: Siglip2VisionModel, inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    values, mask, grids = inputs
    noise = torch.randn(values.shape) * (1 - mask[..., None])
    torch.testing.assert_close(
        model(values + noise, mask, grids).pooler_output, model(*inputs).pooler_output
    )


@torch.inference_mode()
def test_the_same_patches_in_another_grid_are_another_image(
    model: Siglip2VisionModel, inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    values, mask, _ = (part[1:2] for part in inputs)
    wide, tall = (model(values, mask, torch.tensor([grid])) for grid in ((2, 7), (7, 2)))
    assert relative_difference(tall.pooler_output, wide.pooler_output) > 1e-2


def test_a_tower_without_head_pools_nothing(
    inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    config = Siglip2VisionConfig.from_dict(tiny_naflex_config(vision_use_head=False).to_dict())
    assert Siglip2VisionModel(config)(*inputs).pooler_output is None


@pytest.mark.parametrize("grid", [(4, 5), (0, 4)])
def test_a_grid_that_the_patches_do_not_hold_is_refused(
    model: Siglip2VisionModel, grid: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match=f"{grid[0]}x{grid[1]} patches"):
        model(torch.zeros(1, LENGTH, 192), torch.ones(1, LENGTH), torch.tensor([grid]))


def test_a_mask_of_another_length_is_refused(model: Siglip2VisionModel) -> None:
    with pytest.raises(ValueError, match="pixel_attention_mask"):
        model(torch.zeros(1, LENGTH, 192), torch.ones(1, 16), torch.tensor([(4, 4)]))


@pytest.mark.parametrize("keys", ["prefixed", "flat"])
def test_checkpoints_load_in_both_spellings(keys: str, tmp_path: Path) -> None:
    written = write_naflex_checkpoint(tmp_path, keys=keys)  # type: ignore[arg-type]
    loaded = Siglip2VisionModel.from_pretrained(tmp_path)
    theirs = written.model.state_dict()
    assert loaded.vision_model.state_dict().keys() == theirs.keys()
    for name, tensor in loaded.vision_model.state_dict().items():
        assert torch.equal(tensor, theirs[name])


def test_a_missing_tensor_is_refused_by_name(tmp_path: Path) -> None:
    write_naflex_checkpoint(tmp_path)
    edit_tensors(tmp_path, {"vision_model.head.probe": None})
    with pytest.raises(CheckpointError, match=r"missing head\.probe"):
        Siglip2VisionModel.from_pretrained(tmp_path)


def test_each_class_refuses_the_others_checkpoint(
    tmp_path: Path, tiny_checkpoint: ReferenceCheckpoint
) -> None:
    write_naflex_checkpoint(tmp_path)
    with pytest.raises(ConfigError, match="is for Siglip2VisionModel"):
        SiglipVisionModel.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="is for SiglipVisionModel"):
        Siglip2VisionModel.from_pretrained(tiny_checkpoint.folder)


def test_random_weights_repeat_for_a_seed() -> None:
    config = Siglip2VisionConfig.from_dict(tiny_naflex_config().to_dict())
    first, again, other = (Siglip2VisionModel.from_random(config, seed) for seed in (0, 0, 1))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    probes = [model.state_dict()["vision_model.head.probe"] for model in (first, other)]
    assert not torch.equal(*probes)


@pytest.mark.parametrize(
    "model", [model for model in PUBLISHED_MODELS if model.shape.endswith("naflex")]
)
def test_published_towers_have_the_weights_that_are_listed(model: PublishedModel) -> None:
    with torch.device("meta"):
        tower = Siglip2VisionModel(Siglip2VisionConfig.from_shape(model.shape))

    weights = sum(weight.numel() for weight in tower.parameters())
    assert weights == count_parameters(model.config)
