"""The text tower, part by part and whole, against transformers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import SiglipTextModel as ReferenceModel

from model import Siglip2TextModel, SiglipTextConfig, SiglipTextModel
from model.modeling_siglip_text_embeddings import SiglipTextEmbeddings
from tests.reference import relative_difference
from tests.text_reference import build_text_model, draw_input_ids, tiny_text_config

TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def reference() -> Any:
    """The tiny reference text tower; to be read only."""
    return build_text_model("siglip", **tiny_text_config())


@pytest.fixture(scope="module")
def model(reference: Any) -> SiglipTextModel:
    """Our tower with its weights."""
    own = SiglipTextModel(SiglipTextConfig.from_dict(reference.config.to_dict())).eval()
    own.text_model.load_state_dict(reference.state_dict())
    return own


@pytest.fixture(scope="module")
def input_ids(reference: Any) -> torch.Tensor:
    """Three texts of unlike length, padded: (3, 16)."""
    return draw_input_ids(reference.config)


@torch.inference_mode()
def test_embeddings_equal_the_references(
    model: SiglipTextModel, reference: Any, input_ids: torch.Tensor
) -> None:
    ours = model.text_model.embeddings(input_ids)
    assert relative_difference(ours, reference.embeddings(input_ids)) <= TOLERANCE


@pytest.mark.parametrize("tokens", [16, 7, 1])
@torch.inference_mode()
def test_outputs_equal_the_references(
    model: SiglipTextModel, reference: Any, input_ids: torch.Tensor, tokens: int
) -> None:
    ids = input_ids[:, :tokens]
    ours, theirs = model(ids), reference(ids)
    assert ours.last_hidden_state.shape == (3, tokens, 24)
    assert ours.pooler_output.shape == (3, 32)
    for name in ("last_hidden_state", "pooler_output"):
        difference = relative_difference(getattr(ours, name), getattr(theirs, name))
        assert difference <= TOLERANCE


@torch.inference_mode()
def test_padding_is_attended_to(model: SiglipTextModel, input_ids: torch.Tensor) -> None:
    """As in training: a text without its padding has another vector."""
    padded, short = model(input_ids[:1]).pooler_output, model(input_ids[:1, :2]).pooler_output
    assert relative_difference(short, padded) > 1e-2


@torch.inference_mode()
def test_every_position_counts(model: SiglipTextModel, input_ids: torch.Tensor) -> None:
    """The last vector has seen all tokens, and where they stand."""
    before = model(input_ids).pooler_output
    for position in (0, 7, 15):
        changed = input_ids.clone()
        changed[:, position] = 2
        assert relative_difference(model(changed).pooler_output, before) > 1e-3
    assert relative_difference(model(input_ids.flip(1)).pooler_output, before) > 1e-2


@torch.inference_mode()
def test_texts_of_a_batch_do_not_mix(model: SiglipTextModel, input_ids: torch.Tensor) -> None:
    together = model(input_ids).pooler_output
    alone = torch.cat([model(text[None]).pooler_output for text in input_ids])
    assert relative_difference(alone, together) <= TOLERANCE


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
@torch.inference_mode()
def test_ids_may_be_of_any_integer_type(
    model: SiglipTextModel, input_ids: torch.Tensor, dtype: torch.dtype
) -> None:
    assert torch.equal(model(input_ids.to(dtype)).pooler_output, model(input_ids).pooler_output)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.zeros(2, 17, dtype=torch.int64), "17 tokens long; positions are learned for 16"),
        (torch.zeros(2, 16), "float32; they must be integers"),
        (torch.zeros(2, 16, dtype=torch.bool), "bool; they must be integers"),
        (torch.full((1, 16), 99), "from 99 to 99; the token table has 0 to 98"),
        (torch.tensor([[0, -1]]), "from -1 to 0; the token table has 0 to 98"),
        (torch.zeros(16, dtype=torch.int64), r"input_ids is \(16,\) instead of \(batch, tokens\)"),
        (torch.zeros(0, 16, dtype=torch.int64), r"\(0, 16\) instead of \(batch, tokens\)"),
        (torch.zeros(1, 0, dtype=torch.int64), r"\(1, 0\) instead of \(batch, tokens\)"),
    ],
)
def test_what_are_no_ids_of_the_model_is_refused_in_words(
    model: SiglipTextModel, ids: torch.Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        model(ids)


def test_a_list_of_ids_is_refused(model: SiglipTextModel) -> None:
    with pytest.raises(TypeError, match="input_ids is of type list"):
        model([[1, 2]])


def test_random_weights_are_of_the_references_distribution() -> None:
    embeddings = SiglipTextEmbeddings(SiglipTextConfig())
    for table in (embeddings.token_embedding, embeddings.position_embedding):
        assert float(table.weight.detach().std()) == pytest.approx(768**-0.5, rel=0.03)
    head = SiglipTextModel(SiglipTextConfig(num_hidden_layers=1)).text_model.head
    assert float(head.weight.detach().std()) == pytest.approx(768**-0.5, rel=0.03)
    assert not head.bias.any()


def test_random_weights_repeat_for_a_seed() -> None:
    config = SiglipTextConfig.from_dict(tiny_text_config())
    first, again, other = (SiglipTextModel.from_random(config, seed) for seed in (0, 0, 1))
    weights = [model.state_dict() for model in (first, again, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(*(own["text_model.head.weight"] for own in (weights[0], weights[2])))


@pytest.mark.parametrize("model_class", [SiglipTextModel, Siglip2TextModel])
@torch.no_grad()
def test_a_tower_is_exported_for_every_batch_size(
    model_class: Any, input_ids: torch.Tensor
) -> None:
    model = model_class(model_class.config_class.from_dict(tiny_text_config())).eval()
    shapes = {"input_ids": {0: torch.export.Dim("batch", max=64)}}
    program = torch.export.export(
        model, (), {"input_ids": input_ids}, dynamic_shapes=shapes
    ).module()
    for ids in (input_ids[:1], torch.cat([input_ids, input_ids.flip(1)])):
        torch.testing.assert_close(program(input_ids=ids).pooler_output, model(ids).pooler_output)


def test_a_saved_tower_is_read_by_both_sides(model: SiglipTextModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    own = SiglipTextModel.from_pretrained(tmp_path)
    theirs, loading = ReferenceModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values())
    assert own.config == model.config
    ids = draw_input_ids(model.config)
    with torch.inference_mode():
        expected = model(ids).pooler_output
        assert torch.equal(own(ids).pooler_output, expected)
        assert relative_difference(theirs(ids).pooler_output, expected) <= TOLERANCE
