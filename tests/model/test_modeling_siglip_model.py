"""Models of two towers against transformers: features, logits, files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModel

from model import (
    ConfigError,
    Siglip2Config,
    Siglip2ImageProcessor,
    Siglip2Model,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)
from tests.reference import relative_difference
from tests.text_reference import Generation, draw_input_ids, write_full_checkpoint

MODELS: dict[Generation, Any] = {"siglip": SiglipModel, "siglip2": Siglip2Model}
PROCESSORS: dict[Generation, Any] = {
    "siglip": SiglipImageProcessor(height=32, width=32),
    "siglip2": Siglip2ImageProcessor(patch_size=8, max_num_patches=24),
}
TOLERANCE = 2e-6


@pytest.fixture(scope="module", params=["siglip", "siglip2"])
def generation(request: pytest.FixtureRequest) -> Generation:
    """Fixed resolution and NaFlex."""
    return request.param


@pytest.fixture(scope="module")
def folder(generation: Generation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two tiny towers; to be read only."""
    return write_full_checkpoint(tmp_path_factory.mktemp("full"), generation).folder


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    """What transformers reads from it."""
    return AutoModel.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def model(generation: Generation, folder: Path) -> Any:
    """What we read from it."""
    return MODELS[generation].from_pretrained(folder)


@pytest.fixture(scope="module")
def images(generation: Generation, photographs: list[Image.Image]) -> Any:
    """Four photographs as the model takes them."""
    return PROCESSORS[generation](photographs)


@pytest.fixture(scope="module")
def input_ids(reference: Any) -> torch.Tensor:
    """Three texts."""
    return draw_input_ids(reference.config.text_config)


@torch.inference_mode()
def test_outputs_equal_the_references(
    model: Any, reference: Any, images: Any, input_ids: torch.Tensor
) -> None:
    ours = model(images, input_ids=input_ids)
    theirs = reference(input_ids=input_ids, **images)
    assert ours.logits_per_image.shape == (4, 3)
    for name in ("logits_per_image", "logits_per_text", "image_embeds", "text_embeds"):
        difference = relative_difference(getattr(ours, name), getattr(theirs, name))
        assert difference <= TOLERANCE, name
    for name in ("text_model_output", "vision_model_output"):
        pooled, expected = (getattr(both, name).pooler_output for both in (ours, theirs))
        assert relative_difference(pooled, expected) <= TOLERANCE


@torch.inference_mode()
def test_features_are_the_references_vectors_as_they_are(
    model: Any, reference: Any, images: Any, input_ids: torch.Tensor
) -> None:
    texts, pictures = model.get_text_features(input_ids), model.get_image_features(**images)
    expected = reference.get_text_features(input_ids).pooler_output
    assert relative_difference(texts, expected) <= TOLERANCE
    expected = reference.get_image_features(**images).pooler_output
    assert relative_difference(pictures, expected) <= TOLERANCE
    for vectors in (texts, pictures):
        assert (vectors.norm(dim=-1) - 1).abs().min() > 0.1  # not normalised


@torch.inference_mode()
def test_reference_logits_tell_texts_and_images_apart(
    reference: Any, images: Any, input_ids: torch.Tensor
) -> None:
    """Guards the other tests: logits that are all alike would hide a mistake."""
    logits = reference(input_ids=input_ids, **images).logits_per_image
    assert logits.std(0).min() > 1e-2
    assert logits.std(1).min() > 1e-2
    assert float(reference.logit_bias.abs()) > 1e-2
    assert float(reference.logit_scale.abs()) > 1e-2


def test_a_saved_model_is_read_by_both_sides(
    model: Any, images: Any, input_ids: torch.Tensor, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    own = type(model).from_pretrained(tmp_path)
    theirs, loading = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values())
    assert own.config == model.config
    assert type(theirs).__name__ == type(model).__name__
    with torch.inference_mode():
        expected = model(images, input_ids=input_ids).logits_per_text
        assert torch.equal(own(images, input_ids=input_ids).logits_per_text, expected)
        logits = theirs(input_ids=input_ids, **images).logits_per_text
        assert relative_difference(logits, expected) <= TOLERANCE


def test_each_class_refuses_the_others_checkpoint(generation: Generation, folder: Path) -> None:
    other = SiglipModel if generation == "siglip2" else Siglip2Model
    with pytest.raises(ConfigError, match="VisionModel"):
        other.from_pretrained(folder)


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float16])
def test_weights_can_be_cast_while_they_are_read(
    model: Any, folder: Path, dtype: torch.dtype | str
) -> None:
    cast = type(model).from_pretrained(folder, dtype=dtype)
    wanted = torch.bfloat16 if isinstance(dtype, str) else dtype
    assert {weight.dtype for weight in cast.parameters()} == {wanted}


@torch.inference_mode()
def test_random_models_repeat_and_begin_with_neutral_logits(
    model: Any, images: Any, input_ids: torch.Tensor
) -> None:
    first, again = (type(model).from_random(model.config) for _ in range(2))
    logits = first(images, input_ids=input_ids).logits_per_image
    assert torch.equal(logits, again(images, input_ids=input_ids).logits_per_image)
    assert logits.abs().max() <= 1  # the cosines themselves


@pytest.mark.parametrize(
    ("model_class", "config"), [(SiglipModel, SiglipConfig()), (Siglip2Model, Siglip2Config())]
)
def test_a_model_has_as_many_weights_as_the_published_one(model_class: Any, config: Any) -> None:
    with torch.device("meta"):
        weights = sum(weight.numel() for weight in model_class(config).parameters())
    # siglip-base-patch16-224; NaFlex has 256 positions instead of 196.
    assert weights == 203_155_970 + (256 - 196) * 768 * (model_class is Siglip2Model)
