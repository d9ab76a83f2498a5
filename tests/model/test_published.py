"""The list of published models, and the figures that follow from their shapes."""

import pytest
import torch

from model import SiglipTextModel, SiglipVisionModel
from model.published import (
    PUBLISHED_MODELS,
    PublishedModel,
    count_parameters,
    count_text_parameters,
    forward_flop,
    forward_text_flop,
)

FIXED = [model for model in PUBLISHED_MODELS if not model.shape.endswith("naflex")]


def test_all_published_towers_are_listed_once() -> None:
    names = [model.name for model in PUBLISHED_MODELS]

    assert len(set(names)) == len(names) == 28
    assert sum(name.startswith("google/siglip-") for name in names) == 10
    assert sum(name.startswith("google/siglip2-") for name in names) == 17


@pytest.mark.parametrize("model", FIXED, ids=lambda model: model.name)
def test_weights_are_counted_as_the_model_has_them(model: PublishedModel) -> None:
    config = model.config
    with torch.device("meta"):
        tower = SiglipVisionModel(config)

    assert count_parameters(config) == sum(weight.numel() for weight in tower.parameters())


@pytest.mark.parametrize(
    ("name", "weights", "gflop"),
    [
        ("siglip-base-patch16-224", 92_884_224, 35.4),
        ("siglip-large-patch16-384", 316_283_904, 383.9),
        ("siglip-so400m-patch14-384", 428_225_600, 670.3),
        ("siglip2-base-patch32-256", 94_552_320, 11.5),
        ("siglip2-giant-opt-patch16-384", 1_163_659_776, 1393.0),
        ("siglip2-so400m-patch16-naflex", 427_888_064, 220.5),
    ],
)
def test_figures_equal_those_published(name: str, weights: int, gflop: float) -> None:
    (model,) = [model for model in PUBLISHED_MODELS if model.name == f"google/{name}"]

    assert count_parameters(model.config) == weights
    assert round(forward_flop(model.config) / 1e9, 1) == gflop


@pytest.mark.parametrize("model", PUBLISHED_MODELS, ids=lambda model: model.name)
def test_text_weights_are_counted_as_the_model_has_them(model: PublishedModel) -> None:
    with torch.device("meta"):
        tower = SiglipTextModel(model.text_config)

    assert count_text_parameters(model.text_config) == sum(
        weight.numel() for weight in tower.parameters()
    )


@pytest.mark.parametrize(
    ("name", "weights", "gflop"),
    [
        ("siglip-base-patch16-224", 203_155_970, 11.0),
        ("siglip-base-patch16-256-multilingual", 370_626_050, 11.0),
        ("siglip-large-patch16-256", 652_150_786, 39.1),
        ("siglip-so400m-patch14-224", 877_360_306, 13.2),
        ("siglip-so400m-patch16-256-i18n", 1_128_758_962, 53.1),
        ("siglip2-base-patch16-224", 375_187_970, 11.0),
        ("siglip2-large-patch16-256", 881_526_786, 39.1),
        ("siglip2-so400m-patch14-384", 1_136_008_498, 53.1),
        ("siglip2-giant-opt-patch16-256", 1_871_393_906, 53.1),
        ("siglip2-base-patch16-naflex", 375_234_050, 11.0),
    ],
)
def test_weights_of_both_towers_are_those_of_the_published_file(
    name: str, weights: int, gflop: float
) -> None:
    (model,) = [model for model in PUBLISHED_MODELS if model.name == f"google/{name}"]
    towers = count_parameters(model.config) + count_text_parameters(model.text_config)

    assert towers + 2 == weights  # logit_scale and logit_bias
    assert round(forward_text_flop(model.text_config) / 1e9, 1) == gflop
