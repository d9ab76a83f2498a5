"""SiglipModel and Siglip2Model: a vision tower and a text tower, and the logits of both."""

from types import MappingProxyType
from typing import NamedTuple, TypeVar

import torch
from torch import nn

from model.checkpoint import Checkpoint
from model.config_siglip import DualEncoderConfig, Siglip2Config, SiglipConfig
from model.modeling_siglip2_transformer import Siglip2VisionTransformer
from model.modeling_siglip_text_transformer import SiglipTextTransformer
from model.modeling_siglip_vision_transformer import (
    BaseModelOutputWithPooling,
    SiglipVisionTransformer,
)
from model.pretrained import PreTrainedModel
from model.tower_keys import TEXT_KEYS, VISION_KEYS

FullConfig = TypeVar("FullConfig", bound=DualEncoderConfig)


class SiglipOutput(NamedTuple):
    """What a model of two towers returns; the field names are the reference's."""

    logits_per_image: torch.Tensor
    """(images, texts); their sigmoid is the probability that the two belong together."""
    logits_per_text: torch.Tensor
    """(texts, images)."""
    text_embeds: torch.Tensor
    """(texts, projection), L2-normalised."""
    image_embeds: torch.Tensor
    """(images, projection), L2-normalised."""
    text_model_output: BaseModelOutputWithPooling
    vision_model_output: BaseModelOutputWithPooling


class LogitParameters(NamedTuple):
    """What turns a cosine into a logit: cosine * exp(scale) + bias."""

    scale: float
    bias: float


class DualEncoderModel(PreTrainedModel[FullConfig]):
    """Two towers and what turns the cosine of their vectors into a logit.

    Zhai et al. 2023, section 3.
    """

    towers = MappingProxyType({"vision_model": VISION_KEYS, "text_model": TEXT_KEYS})

    def __init__(self, config: FullConfig) -> None:
        super().__init__(config)
        self.text_model = SiglipTextTransformer(config.text_config)
        self.logit_scale = nn.Parameter(torch.zeros(1))
        self.logit_bias = nn.Parameter(torch.zeros(1))

    def get_text_features(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Encode texts: integers (batch, tokens) -> (batch, projection), not normalised.

        `input_ids` and errors as `SiglipTextModel.forward` has them.
        """
        return self.text_model(input_ids).pooler_output

    def _compare(
        self, images: BaseModelOutputWithPooling, texts: BaseModelOutputWithPooling
    ) -> SiglipOutput:
        image_embeds, text_embeds = _normalize(images), _normalize(texts)
        cosines = text_embeds @ image_embeds.T
        logits = cosines * self.logit_scale.exp() + self.logit_bias  # (texts, images)
        return SiglipOutput(logits.T, logits, text_embeds, image_embeds, texts, images)


class SiglipModel(DualEncoderModel[SiglipConfig]):
    """Images of fixed resolution and texts; reference class `SiglipModel`."""

    config_class = SiglipConfig

    def __init__(self, config: SiglipConfig) -> None:
        super().__init__(config)
        self.vision_model = SiglipVisionTransformer(config.vision_config)

    def get_image_features(
        self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool = False
    ) -> torch.Tensor:
        """Encode images: (batch, channels, height, width) -> (batch, projection), not normalised.

        Arguments and errors as `SiglipVisionModel.forward` has them.
        """
        return self.vision_model(pixel_values, interpolate_pos_encoding).pooler_output

    def forward(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor,
        interpolate_pos_encoding: bool = False,
    ) -> SiglipOutput:
        """Compare every text (texts, tokens) with every image (images, channels, height, width)."""
        images = self.vision_model(pixel_values, interpolate_pos_encoding)
        return self._compare(images, self.text_model(input_ids))


class Siglip2Model(DualEncoderModel[Siglip2Config]):
    """Images of any aspect ratio (NaFlex) and texts; reference class `Siglip2Model`.

    SigLIP 2 checkpoints of fixed resolution are for `SiglipModel`.
    """

    config_class = Siglip2Config

    def __init__(self, config: Siglip2Config) -> None:
        super().__init__(config)
        self.vision_model = Siglip2VisionTransformer(config.vision_config)

    def get_image_features(
        self,
        pixel_values: torch.Tensor,
        pixel_attention_mask: torch.Tensor,
        spatial_shapes: torch.Tensor,
    ) -> torch.Tensor:
        """Encode images: -> (batch, projection), not normalised.

        Arguments and errors as `Siglip2VisionModel.forward` has them.
        """
        return self.vision_model(pixel_values, pixel_attention_mask, spatial_shapes).pooler_output

    def forward(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor,
        pixel_attention_mask: torch.Tensor,
        spatial_shapes: torch.Tensor,
    ) -> SiglipOutput:
        """Compare every text (texts, tokens) with every image, as `get_image_features` takes it."""
        images = self.vision_model(pixel_values, pixel_attention_mask, spatial_shapes)
        return self._compare(images, self.text_model(input_ids))


def read_logit_parameters(checkpoint: Checkpoint) -> LogitParameters | None:
    """Read what turns cosines into logits: `logit_scale` and `logit_bias` beside the text tower.

    None where a checkpoint lacks one of them, or has more than one number for it: vectors do
    without them.
    """
    numbers = checkpoint.read_numbers(TEXT_KEYS, ("logit_scale", "logit_bias"))
    if len(numbers) < 2:
        return None
    return LogitParameters(numbers["logit_scale"], numbers["logit_bias"])


def _normalize(outputs: BaseModelOutputWithPooling) -> torch.Tensor:
    """Return pooled vectors of length 1; without the reference's division by 0."""
    assert outputs.pooler_output is not None  # noqa: S101 # the configuration demands a head
    return nn.functional.normalize(outputs.pooler_output, dim=-1)
