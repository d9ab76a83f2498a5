"""Configurations of text towers and of whole models: defaults, spellings, and what is refused."""

from dataclasses import asdict
from typing import Any

import pytest
from transformers import Siglip2TextConfig as Reference2Config
from transformers import SiglipTextConfig as ReferenceConfig

from model import (
    ConfigError,
    Siglip2Config,
    Siglip2TextConfig,
    SiglipConfig,
    SiglipTextConfig,
    SiglipVisionConfig,
)
from tests.text_reference import tiny_text_config

# Ids come from the tokenizer; the defaults do not even fit it.
SPECIAL_TOKENS = {"pad_token_id", "bos_token_id", "eos_token_id"}


@pytest.mark.parametrize(
    ("config_class", "reference"),
    [(SiglipTextConfig, ReferenceConfig()), (Siglip2TextConfig, Reference2Config())],
)
def test_fields_and_defaults_are_the_references(
    config_class: type[SiglipTextConfig], reference: ReferenceConfig
) -> None:
    ours = asdict(config_class())
    assert ours == {name: getattr(reference, name) for name in ours}
    known = set(ours) | SPECIAL_TOKENS | {"model_type", "base_config_key"}
    assert set(type(reference).__annotations__) <= known


@pytest.mark.parametrize("whole", [False, True])
def test_reads_a_text_tower_alone_and_that_of_a_whole_model(whole: bool) -> None:
    written = ReferenceConfig(**tiny_text_config(attention_dropout=0.25)).to_dict()
    config = {"model_type": "siglip", "text_config": written} if whole else written
    ours = asdict(SiglipTextConfig.from_dict(config))
    assert ours == {name: written[name] for name in ours}
    assert (ours["projection_size"], ours["attention_dropout"]) == (32, 0.25)


@pytest.mark.parametrize(
    ("sparse", "values"),
    [
        ({}, {}),
        ({"model_type": "siglip_text_model"}, {}),
        ({"model_type": "siglip", "text_config": None}, {}),
        ({"model_type": "siglip", "vision_config": {"hidden_size": 1024}}, {}),
        (
            {
                "model_type": "siglip",
                "text_config": {"model_type": "siglip_text_model", "vocab_size": 256000},
            },
            {"vocab_size": 256000},
        ),
        (
            {"model_type": "siglip2", "text_config": {"vocab_size": 256000, "hidden_size": 1152}},
            {"vocab_size": 256000, "hidden_size": 1152, "num_attention_heads": 16},
        ),
        ({"text_config": {"projection_size": None}}, {}),
    ],
)
def test_what_a_sparse_config_leaves_out_takes_the_defaults(
    sparse: dict[str, Any], values: dict[str, Any]
) -> None:
    assert SiglipTextConfig.from_dict(sparse) == SiglipTextConfig(**values)
    assert SiglipTextConfig.describes(sparse)


def test_without_a_projection_size_vectors_are_as_long_as_tokens() -> None:
    config = {"hidden_size": 1152, "num_attention_heads": 16}
    assert SiglipTextConfig.from_dict(config).projection_size == 1152
    assert SiglipTextConfig.from_dict(config | {"projection_size": 1536}).projection_size == 1536


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "siglip_vision_model"},
        {"model_type": "clip", "text_config": {}},
        {"model_type": "paligemma", "text_config": {"model_type": "gemma"}},
    ],
)
def test_other_architectures_are_refused(config: dict[str, Any]) -> None:
    assert not SiglipTextConfig.describes(config)
    with pytest.raises(ConfigError, match="is not a SigLIP text tower"):
        SiglipTextConfig.from_dict(config)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vocab_size", 0),
        ("vocab_size", 2**22 + 1),
        ("vocab_size", "32000"),
        ("max_position_embeddings", True),
        ("projection_size", 0),
        ("projection_size", False),
        ("hidden_act", "relu"),
    ],
)
def test_an_impossible_value_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        SiglipTextConfig.from_dict({name: value})


def test_a_text_config_that_is_no_object_is_refused() -> None:
    with pytest.raises(ConfigError, match="text_config is not an object"):
        SiglipTextConfig.from_dict({"text_config": []})


@pytest.mark.parametrize("config_class", [SiglipConfig, Siglip2Config])
def test_a_whole_config_is_written_as_it_is_read(
    config_class: type[SiglipConfig] | type[Siglip2Config],
) -> None:
    config = config_class()
    written = config.to_dict()
    assert written["model_type"] == config_class.model_type
    assert config_class.from_dict(written) == config
    other = Siglip2Config if config_class is SiglipConfig else SiglipConfig
    with pytest.raises(ConfigError, match="VisionModel"):
        other.from_dict(written)


def test_towers_of_unlike_vectors_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"hidden_size 768, .* projection_size 512"):
        SiglipConfig(text_config=SiglipTextConfig(projection_size=512))


def test_a_vision_tower_without_head_has_nothing_to_compare() -> None:
    with pytest.raises(ConfigError, match="vision_use_head is off"):
        SiglipConfig(vision_config=SiglipVisionConfig(vision_use_head=False))


def test_a_vision_tower_alone_is_no_whole_model() -> None:
    with pytest.raises(ConfigError, match="is not a SigLIP text tower"):
        SiglipConfig.from_dict({"model_type": "siglip_vision_model"})
