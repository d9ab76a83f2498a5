"""The NaFlex configuration: defaults, spellings of config.json, and what is refused."""

from dataclasses import asdict
from typing import Any

import pytest
from transformers import Siglip2VisionConfig as ReferenceConfig

from model import ConfigError, Siglip2VisionConfig, SiglipVisionConfig
from tests.naflex_reference import tiny_naflex_config


def test_fields_and_defaults_are_the_references() -> None:
    reference = ReferenceConfig()
    ours = asdict(Siglip2VisionConfig())
    assert ours == {name: getattr(reference, name) for name in ours}
    assert set(ReferenceConfig.__annotations__) <= set(ours) | {"model_type", "base_config_key"}


def test_reads_the_config_of_a_vision_tower_alone() -> None:
    reference = tiny_naflex_config(vision_use_head=False)
    ours = asdict(Siglip2VisionConfig.from_dict(reference.to_dict()))
    assert ours == {name: getattr(reference, name) for name in ours}


@pytest.mark.parametrize(
    "sparse",
    [
        {"model_type": "siglip2_vision_model"},
        {"model_type": "siglip2", "vision_config": {}},
        {"model_type": "siglip2", "vision_config": {"model_type": "siglip2_vision_model"}},
    ],
)
def test_what_a_sparse_config_leaves_out_takes_the_defaults(sparse: dict[str, Any]) -> None:
    assert Siglip2VisionConfig.from_dict(sparse) == Siglip2VisionConfig()
    assert Siglip2VisionConfig.describes(sparse)
    assert not SiglipVisionConfig.describes(sparse)


@pytest.mark.parametrize(
    "config", [{}, {"model_type": "siglip"}, {"vision_config": {"model_type": "siglip"}}]
)
def test_a_tower_of_fixed_resolution_is_refused_with_the_class_for_it(
    config: dict[str, Any],
) -> None:
    assert not Siglip2VisionConfig.describes(config)
    with pytest.raises(ConfigError, match=r"fixed resolution.* SiglipVisionModel"):
        Siglip2VisionConfig.from_dict(config)


def test_another_architecture_is_refused() -> None:
    with pytest.raises(ConfigError, match="is not a SigLIP vision tower"):
        Siglip2VisionConfig.from_dict({"model_type": "clip"})


@pytest.mark.parametrize("num_patches", [255, 2, 0, "256"])
def test_positions_that_are_no_square_are_refused(num_patches: Any) -> None:
    with pytest.raises(ConfigError, match="num_patches"):
        Siglip2VisionConfig.from_dict({"model_type": "siglip2", "num_patches": num_patches})


def test_a_named_shape_is_the_published_architecture() -> None:
    assert Siglip2VisionConfig.from_shape("base-patch16-naflex") == Siglip2VisionConfig()
    so400m = Siglip2VisionConfig.from_shape("so400m-patch16-naflex")
    assert (so400m.hidden_size, so400m.num_hidden_layers, so400m.num_patches) == (1152, 27, 256)


@pytest.mark.parametrize("shape", ["base-patch16-224", "base-naflex", "huge-patch16-naflex"])
def test_an_unknown_shape_is_refused(shape: str) -> None:
    with pytest.raises(ConfigError, match="unknown shape"):
        Siglip2VisionConfig.from_shape(shape)
