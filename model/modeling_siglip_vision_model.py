"""SiglipVisionModel: the vision tower with its configuration, and how to get one with weights."""

from os import PathLike
from typing import Self

import torch
from torch import nn

from model.checkpoint import open_checkpoint
from model.config import SiglipVisionConfig
from model.modeling_siglip_vision_transformer import (
    BaseModelOutputWithPooling,
    SiglipVisionTransformer,
)


class SiglipVisionModel(nn.Module):
    """The SigLIP vision tower under the names of published checkpoints (`vision_model.*`).

    A new model has random weights, drawn from the reference's distributions. Reference class
    `SiglipVisionModel`.
    """

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_model = SiglipVisionTransformer(config)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | PathLike[str], revision: str | None = None
    ) -> Self:
        """Load a checkpoint from a local folder or from the Hugging Face hub, ready for inference.

        The weights keep the file's dtype (float32 if it mixes several) and stay memory-mapped until
        they are moved or cast.
        Raises `CheckpointError` when it cannot be had or does not fit, `ConfigError` when its
        config.json describes another kind of model.
        """
        checkpoint = open_checkpoint(name_or_path, revision)
        with torch.device("meta"):  # no memory for weights that the file is about to supply
            model = cls(checkpoint.config)
        shapes = {
            name: parameter.shape for name, parameter in model.vision_model.named_parameters()
        }
        tensors = checkpoint.read_vision_tensors(shapes)
        model.vision_model.load_state_dict(tensors, assign=True)
        mixed = len({tensor.dtype for tensor in tensors.values()}) > 1
        return (model.float() if mixed else model).eval()

    @classmethod
    def from_random(cls, config: SiglipVisionConfig, seed: int = 0) -> Self:
        """Build a model with random weights from `seed`, ready for inference.

        The global generator is left alone. Weights repeat on one version of torch and one kind of
        processor.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model = cls(config)
        return model.eval()

    def forward(
        self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool = False
    ) -> BaseModelOutputWithPooling:
        """Encode images: (batch, channels, height, width) -> patch and pooled vectors.

        `pixel_values` are normalised as by `SiglipImageProcessor`. Raises `ValueError` for an image
        size whose patch grid the model has no positions for, unless `interpolate_pos_encoding`.
        """
        return self.vision_model(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding)
