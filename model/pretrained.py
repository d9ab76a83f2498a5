"""How a vision model gets its weights: from a checkpoint, or drawn from a seed."""

from os import PathLike
from typing import Generic, Self, TypeVar

import torch
from torch import nn

from model.checkpoint import open_checkpoint
from model.config import VisionTowerConfig

Config = TypeVar("Config", bound=VisionTowerConfig)


class PreTrainedVisionModel(nn.Module, Generic[Config]):
    """A tower under the name that published checkpoints give it, `vision_model`.

    Takes the place of the reference's `PreTrainedModel`.
    """

    config_class: type[Config]
    vision_model: nn.Module

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

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
        config = cls.config_class.from_dict(checkpoint.config)
        with torch.device("meta"):  # no memory for weights that the file is about to supply
            model = cls(config)
        shapes = {
            name: parameter.shape for name, parameter in model.vision_model.named_parameters()
        }
        tensors = checkpoint.read_vision_tensors(shapes)
        model.vision_model.load_state_dict(tensors, assign=True)
        mixed = len({tensor.dtype for tensor in tensors.values()}) > 1
        return (model.float() if mixed else model).eval()

    @classmethod
    def from_random(cls, config: Config, seed: int = 0) -> Self:
        """Build a model with random weights from `seed`, ready for inference.

        The global generator is left alone. Weights repeat on one version of torch and one kind of
        processor.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model = cls(config)
        return model.eval()
