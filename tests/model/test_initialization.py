"""The weights of a new model are drawn as the reference draws them."""

import math

import pytest
import torch
from transformers import SiglipVisionModel as ReferenceModel

from model import SiglipVisionConfig, SiglipVisionModel
from model.initialization import lecun_normal_
from tests.reference import tiny_vision_config

# Wide enough for the moments of each tensor to be sharp.
WIDE = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 1}

# Drawn by lecun_normal_. Since version 5 the reference cuts it at two instead of at two standard
# deviations, hence not at all, so that its variance is larger than 1 / fan_in; ours is as before.
LECUN_NORMAL = ("embeddings.patch_embedding.weight", "head.attention.out_proj.weight")
CUT_NORMAL_STD, CUT_NORMAL_KURTOSIS = 0.87963, 2.366  # of a unit normal cut at two


def test_lecun_normal_has_variance_one_over_fan_in() -> None:
    weight = draw_lecun_normal(64, 16, 8, 8)
    assert weight.mean().abs() < 1e-3
    assert float(weight.std()) == pytest.approx(1 / math.sqrt(16 * 8 * 8), rel=0.02)


def test_lecun_normal_is_cut_at_two_standard_deviations() -> None:
    weight = draw_lecun_normal(512, 512)
    cut = 2 / math.sqrt(512) / 0.8796  # the normal's own deviation, before it was cut
    assert 0.99 * cut < weight.abs().max() <= 1.001 * cut


def draw_lecun_normal(*shape: int) -> torch.Tensor:
    """Fill a tensor from a fixed seed."""
    weight = torch.empty(shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert lecun_normal_(weight) is weight
    return weight


def describe(tensor: torch.Tensor) -> tuple[float, float, float]:
    """Return mean, standard deviation, and kurtosis, which tells uniform, cut and full normal."""
    mean, std = tensor.mean(), tensor.std(correction=0)
    kurtosis = ((tensor - mean) ** 4).mean() / std**4 if std > 0 else torch.zeros(())
    return float(mean), float(std), float(kurtosis)


def test_every_parameter_has_the_references_distribution() -> None:
    reference_config = tiny_vision_config(**WIDE, image_size=64)
    config = SiglipVisionConfig.from_dict(reference_config.to_dict())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reference = ReferenceModel(reference_config).state_dict()
        ours = SiglipVisionModel(config).vision_model.state_dict()
    assert ours.keys() == reference.keys()
    for name, tensor in ours.items():
        mean, std, kurtosis = describe(tensor)
        expected_mean, expected_std, expected_kurtosis = describe(reference[name])
        if name in LECUN_NORMAL:
            expected_std, expected_kurtosis = expected_std * CUT_NORMAL_STD, CUT_NORMAL_KURTOSIS
        sampling = 5 / math.sqrt(tensor.numel())  # five standard errors of a normal's mean
        assert mean == pytest.approx(expected_mean, abs=2 * sampling * expected_std), name
        assert std == pytest.approx(expected_std, rel=2 * sampling), name
        assert kurtosis == pytest.approx(expected_kurtosis, abs=min(6 * sampling, 0.5)), name


def build_random(config: SiglipVisionConfig, seed: int = 0) -> torch.Tensor:
    """Return all weights of a random model as one vector."""
    return torch.nn.utils.parameters_to_vector(
        SiglipVisionModel.from_random(config, seed).parameters()
    ).detach()


def test_a_random_model_depends_on_its_seed_alone(config: SiglipVisionConfig) -> None:
    first = build_random(config)
    torch.rand(7)  # moves the global generator
    assert torch.equal(build_random(config), first)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        assert torch.equal(build_random(config), first)


def test_another_seed_gives_another_model(config: SiglipVisionConfig) -> None:
    assert not torch.equal(build_random(config, seed=1), build_random(config, seed=2))


def test_the_default_seed_is_zero(config: SiglipVisionConfig) -> None:
    default = torch.nn.utils.parameters_to_vector(
        SiglipVisionModel.from_random(config).parameters()
    )
    assert torch.equal(default.detach(), build_random(config, seed=0))


def test_a_random_model_leaves_the_global_generator_alone(config: SiglipVisionConfig) -> None:
    before = torch.get_rng_state()
    SiglipVisionModel.from_random(config, seed=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_new_model_draws_from_the_global_generator(config: SiglipVisionConfig) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = SiglipVisionModel(config)
    weights = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    assert torch.equal(weights, build_random(config, seed=5))
