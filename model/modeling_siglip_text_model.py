"""SiglipTextModel: a text tower with its configuration, and how to get one with weights."""

from types import MappingProxyType
from typing import TypeVar

import torch

from model.checkpoint import Checkpoint
from model.config_siglip_text import Siglip2TextConfig, SiglipTextConfig
from model.modeling_siglip_text_transformer import SiglipTextTransformer
from model.modeling_siglip_vision_transformer import BaseModelOutputWithPooling
from model.pretrained import PreTrainedModel
from model.tensor_rows import TensorRows
from model.tower_keys import TEXT_KEYS

TextConfig = TypeVar("TextConfig", bound=SiglipTextConfig)


class PreTrainedTextModel(PreTrainedModel[TextConfig]):
    """A text tower under the names of published checkpoints (`text_model.*`)."""

    towers = MappingProxyType({"text_model": TEXT_KEYS})

    def __init__(self, config: TextConfig) -> None:
        super().__init__(config)
        self.text_model = SiglipTextTransformer(config)

    def forward(self, input_ids: torch.Tensor) -> BaseModelOutputWithPooling:
        """Encode texts: integers (batch, tokens) -> token and pooled vectors.

        `input_ids` are padded to the full length, as the tokenizer of the same checkpoint does; a
        text with less padding has another vector. Raises `TypeError` or `ValueError` for what are
        no ids of this model, and for more of them than there are positions.
        """
        return self.text_model(input_ids)


class SiglipTextModel(PreTrainedTextModel[SiglipTextConfig]):
    """The text tower of SigLIP and of SigLIP 2, both generations alike.

    A new model has random weights, drawn from the reference's distributions. Reference class
    `SiglipTextModel`.
    """

    config_class = SiglipTextConfig


class Siglip2TextModel(PreTrainedTextModel[Siglip2TextConfig]):
    """The same under the name that NaFlex checkpoints give it; reference `Siglip2TextModel`."""

    config_class = Siglip2TextConfig


def open_token_table(checkpoint: Checkpoint) -> TensorRows:
    """Give the rows of a checkpoint's token table for `FusedTextTransformer`, none in memory."""
    return checkpoint.open_rows(TEXT_KEYS, "embeddings.token_embedding.weight")


def has_text_tower(checkpoint: Checkpoint) -> bool:
    """Tell whether a checkpoint has a text tower that `SiglipTextModel` reads, by names alone."""
    return SiglipTextConfig.describes(checkpoint.config) and checkpoint.has_tower(TEXT_KEYS)
