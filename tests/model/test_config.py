"""The configuration: defaults, every spelling of config.json, and what is refused."""

from dataclasses import FrozenInstanceError, asdict
from typing import Any

import pytest
from transformers import SiglipVisionConfig as ReferenceConfig

from model import ConfigError, SiglipVisionConfig
from tests.reference import build_full_model, build_vision_model, tiny_vision_config

SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}


def test_fields_and_defaults_are_the_references() -> None:
    reference = ReferenceConfig()
    ours = asdict(SiglipVisionConfig())
    assert ours == {name: getattr(reference, name) for name in ours}
    assert set(ReferenceConfig.__annotations__) <= set(ours) | {"model_type", "base_config_key"}


def test_is_immutable() -> None:
    with pytest.raises(FrozenInstanceError):
        SiglipVisionConfig().hidden_size = 1024  # type: ignore[misc]


@pytest.mark.parametrize(
    ("image_size", "patch_size", "grid_size"), [(224, 16, 14), (384, 14, 27), (16, 16, 1)]
)
def test_the_patch_grid_floors(image_size: int, patch_size: int, grid_size: int) -> None:
    config = SiglipVisionConfig(image_size=image_size, patch_size=patch_size)
    assert (config.grid_size, config.num_patches) == (grid_size, grid_size**2)


def test_reads_the_config_of_a_vision_tower_alone() -> None:
    reference = tiny_vision_config(attention_dropout=0.25, vision_use_head=False)
    ours = asdict(SiglipVisionConfig.from_dict(reference.to_dict()))
    assert ours == {name: getattr(reference, name) for name in ours}
    assert ours["attention_dropout"] == 0.25


def test_reads_the_config_of_a_full_model() -> None:
    full = build_full_model(build_vision_model(tiny_vision_config())).config.to_dict()
    assert full["text_config"]["hidden_size"] != 32
    assert SiglipVisionConfig.from_dict(full) == SiglipVisionConfig.from_dict(
        tiny_vision_config().to_dict()
    )


@pytest.mark.parametrize(
    "sparse",
    [
        {},
        {"model_type": "siglip_vision_model"},
        {"model_type": "siglip", "vision_config": {}},
        {"model_type": "siglip", "vision_config": None},
        {"model_type": "siglip", "vision_config": {"model_type": "siglip_vision_model"}},
        {"model_type": "siglip", "text_config": {"vocab_size": 256000}},
        {"architectures": None, "vision_config": {"patch_size": 16, "hidden_act": None}},
    ],
)
def test_what_a_sparse_config_leaves_out_takes_the_defaults(sparse: dict[str, Any]) -> None:
    assert SiglipVisionConfig.from_dict(sparse) == SiglipVisionConfig()


def test_keys_that_describe_something_else_are_ignored() -> None:
    config = {"dtype": "float32", "torch_dtype": "float16", "transformers_version": "5.23.0"}
    assert SiglipVisionConfig.from_dict(config) == SiglipVisionConfig()


def test_the_tower_of_a_larger_model_is_read_by_its_own_model_type() -> None:
    config = {"model_type": "paligemma", "vision_config": {"model_type": "siglip_vision_model"}}
    assert SiglipVisionConfig.from_dict(config) == SiglipVisionConfig()


@pytest.mark.parametrize(("hidden_size", "heads"), [(768, 12), (1024, 16), (1152, 16), (1536, 16)])
def test_missing_heads_are_those_of_the_published_architecture(
    hidden_size: int, heads: int
) -> None:
    config = {"vision_config": {"hidden_size": hidden_size}}
    assert SiglipVisionConfig.from_dict(config).num_attention_heads == heads


def test_given_heads_are_kept() -> None:
    config = {"hidden_size": 768, "num_attention_heads": 8}
    assert SiglipVisionConfig.from_dict(config).num_attention_heads == 8


def test_missing_heads_of_an_unpublished_size_are_not_guessed() -> None:
    with pytest.raises(ConfigError, match=r"num_attention_heads is missing.*640"):
        SiglipVisionConfig.from_dict({"hidden_size": 640})


@pytest.mark.parametrize("side", ["image_size", "patch_size"])
def test_a_side_given_twice_is_read_when_both_agree(side: str) -> None:
    config = SiglipVisionConfig.from_dict({side: [32, 32]})
    assert getattr(config, side) == 32


@pytest.mark.parametrize("size", [[224, 256], [224], [224, 224, 3], []])
def test_a_size_that_is_not_square_is_refused(size: list[int]) -> None:
    with pytest.raises(ConfigError, match="image_size must be square"):
        SiglipVisionConfig.from_dict({"image_size": size})


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "siglip2"},
        {"model_type": "siglip2_vision_model"},
        {"model_type": "siglip2", "vision_config": {"hidden_size": 768}},
        {"model_type": "siglip2", "vision_config": {"model_type": "siglip2_vision_model"}},
    ],
)
def test_naflex_checkpoints_are_refused_with_the_reason(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"NaFlex.*fixed resolution"):
        SiglipVisionConfig.from_dict(config)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "clip"},
        {"model_type": "llava", "vision_config": {"model_type": "clip_vision_model"}},
        {"model_type": "paligemma", "vision_config": {}},
        {"model_type": 3},
        {"model_type": ["siglip"]},
    ],
)
def test_other_architectures_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="is not a SigLIP vision tower"):
        SiglipVisionConfig.from_dict(config)


@pytest.mark.parametrize("vision", [[], "siglip", 3])
def test_a_vision_config_that_is_no_object_is_refused(vision: object) -> None:
    with pytest.raises(ConfigError, match="vision_config is not an object"):
        SiglipVisionConfig.from_dict({"vision_config": vision})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_size", "768"),
        ("hidden_size", 768.0),
        ("hidden_size", 0),
        ("intermediate_size", -1),
        ("num_hidden_layers", True),
        ("num_attention_heads", [12]),
        ("num_channels", 0),
        ("num_channels", 1),
        ("image_size", "224"),
        ("image_size", ["224", "224"]),
        ("patch_size", {"height": 16, "width": 16}),
        ("hidden_act", 1),
        ("layer_norm_eps", "1e-6"),
        ("layer_norm_eps", -1e-6),
        ("layer_norm_eps", float("nan")),
        ("attention_dropout", 1.0),
        ("attention_dropout", False),
        ("vision_use_head", 1),
        ("vision_use_head", "false"),
    ],
)
def test_an_impossible_value_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        SiglipVisionConfig.from_dict({name: value})


def test_heads_that_do_not_divide_the_hidden_size_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"hidden_size 768 is not divisible by .*_heads 7"):
        SiglipVisionConfig(num_attention_heads=7)


def test_an_image_smaller_than_one_patch_is_refused() -> None:
    with pytest.raises(ConfigError, match="image_size 15 is smaller than patch_size 16"):
        SiglipVisionConfig(image_size=15)


def test_a_config_error_is_a_value_error() -> None:
    assert issubclass(ConfigError, ValueError)


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        ("base-patch16-224", {}),
        ("base-patch32-256", {"patch_size": 32, "image_size": 256}),
        (
            "large-patch16-384",
            {
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "image_size": 384,
            },
        ),
        ("so400m-patch14-384", SO400M),
        (
            "giant-opt-patch16-256",
            {
                "hidden_size": 1536,
                "intermediate_size": 6144,
                "num_hidden_layers": 40,
                "num_attention_heads": 16,
                "image_size": 256,
            },
        ),
    ],
)
def test_a_named_shape_is_the_published_architecture(shape: str, values: dict[str, int]) -> None:
    assert SiglipVisionConfig.from_shape(shape) == SiglipVisionConfig(**values)  # type: ignore[arg-type] # all are int


def test_the_tiny_shape_is_small_enough_for_trials() -> None:
    config = SiglipVisionConfig.from_shape("tiny-patch16-32")
    assert (config.num_patches, config.num_hidden_layers) == (4, 2)
    assert config.hidden_size < 128


@pytest.mark.parametrize(
    "shape",
    [
        "",
        "base",
        "base-patch16",
        "huge-patch16-224",
        "base-patch16-224-i18n",
        "base-patch0016-224",
        "base-patch16-22400",
        "base-patch16-",
        "BASE-patch16-224",
    ],
)
def test_an_unknown_shape_is_refused_with_the_known_sizes(shape: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown shape.*base, large, so400m, giant-opt"):
        SiglipVisionConfig.from_shape(shape)


@pytest.mark.parametrize("shape", ["base-patch0-224", "base-patch16-0", "base-patch32-16"])
def test_a_shape_with_impossible_sides_is_refused(shape: str) -> None:
    with pytest.raises(ConfigError, match="_size"):
        SiglipVisionConfig.from_shape(shape)
