"""How a model gets its weights, from a checkpoint or drawn from a seed, and saves them."""

import json
import shutil
from collections.abc import Mapping
from os import PathLike
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import torch
from safetensors.torch import save_file
from torch import nn

from model.checkpoint import Checkpoint, open_checkpoint
from model.checkpoint_writer import replace_files
from model.tower_keys import VISION_KEYS, TowerKeys

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class PreTrainedConfig(Protocol):
    """What config.json says of a model."""

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> Self:
        """Read a parsed config.json."""

    def to_dict(self) -> dict[str, Any]:
        """Return what config.json holds."""


Config = TypeVar("Config", bound=PreTrainedConfig)


class PreTrainedModel(nn.Module, Generic[Config]):
    """Towers under the names that published checkpoints give them, and parameters beside them.

    Takes the place of the reference's class of this name.
    """

    config_class: type[Config]
    towers: ClassVar[Mapping[str, TowerKeys]]
    """How files name the tensors of each tower, by its attribute."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | PathLike[str],
        revision: str | None = None,
        *,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
    ) -> Self:
        """Load a checkpoint from a local folder or from the Hugging Face hub, ready for inference.

        The weights keep the file's dtype (float32 if it mixes several) unless `dtype` or its older
        name `torch_dtype` says another, as `torch.bfloat16` or "bfloat16". They stay memory-mapped
        until they are moved or cast.
        Raises `CheckpointError` when it cannot be had or does not fit, `ConfigError` when its
        config.json describes another kind of model.
        """
        wanted = _read_dtype(torch_dtype if dtype is None else dtype)
        checkpoint = open_checkpoint(name_or_path, revision)
        config = cls.config_class.from_dict(checkpoint.config)
        with torch.device("meta"):  # no memory for weights that the file is about to supply
            model = cls(config)
        tensors = model._read_tensors(checkpoint)
        model.load_state_dict(tensors, assign=True)
        if wanted is None and len({tensor.dtype for tensor in tensors.values()}) > 1:
            wanted = torch.float32
        return model.to(wanted).eval()

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

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are, and so what the model computes in."""
        return next(self.parameters()).dtype

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Do what `forward` does, also given whole what the image processor returned."""
        if args and isinstance(args[0], Mapping):
            return super().__call__(*args[1:], **args[0], **kwargs)
        return super().__call__(*args, **kwargs)

    def save_pretrained(self, save_directory: str | PathLike[str]) -> None:
        """Write config.json and model.safetensors, which the reference reads too.

        Both take the place of older ones once they are whole. Raises `CheckpointError` when they
        cannot be written.
        """
        config = self.config.to_dict() | {
            "architectures": [type(self).__name__],
            "dtype": _name_dtype(self.dtype),
        }
        tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        with replace_files(save_directory) as files:
            (files / "config.json").write_text(json.dumps(config, indent=2))
            save_file(tensors, files / "model.safetensors", metadata={"format": "pt"})
            # safetensors lets nobody but the owner read it.
            shutil.copymode(files / "config.json", files / "model.safetensors")

    def _read_tensors(self, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
        """Return all tensors of a checkpoint that this model has, by their full name."""
        tensors: dict[str, torch.Tensor] = {}
        for tower, keys in self.towers.items():
            own = self.get_submodule(tower).named_parameters()
            read = checkpoint.read_tower(keys, {name: weight.shape for name, weight in own})
            tensors |= {f"{tower}.{name}": tensor for name, tensor in read.items()}
        beside = {name: weight.shape for name, weight in self.named_parameters(recurse=False)}
        return tensors | (checkpoint.read_tensors(beside) if beside else {})


class PreTrainedVisionModel(PreTrainedModel[Config]):
    """A vision tower alone."""

    towers = MappingProxyType({"vision_model": VISION_KEYS})
    vision_model: nn.Module


def _name_dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _read_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """Return a dtype given by itself or its name, None for that of the file."""
    if dtype is None or dtype == "auto":
        return None
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if found not in _DTYPES:
        names = ", ".join(map(_name_dtype, _DTYPES))
        raise ValueError(f"dtype cannot be {dtype!r}; there are {names}")
    return found
