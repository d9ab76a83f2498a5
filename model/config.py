"""Configuration of the SigLIP vision tower, and the reader for every config.json spelling of it."""

import re
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any, ClassVar, Self

ACTIVATIONS = ("gelu_pytorch_tanh", "gelu")

# Heads cannot be read off tensor shapes, so a config.json that leaves them out is completed from
# the published architectures only.
_PUBLISHED_HEADS = MappingProxyType({768: 12, 1024: 16, 1152: 16, 1536: 16})

# hidden_size, intermediate_size, num_hidden_layers, num_attention_heads
_SIZES = MappingProxyType(
    {
        "tiny": (64, 128, 2, 4),  # for tests and trials; no published model
        "base": (768, 3072, 12, 12),
        "large": (1024, 4096, 24, 16),
        "so400m": (1152, 4304, 27, 16),
        "giant-opt": (1536, 6144, 40, 16),
    }
)


# Beyond any model; keeps nonsense from becoming an allocation.
_LARGEST_SIZE = 2**16


class ConfigError(ValueError):
    """The configuration describes no SigLIP vision tower that this library can build."""


@dataclass(frozen=True, kw_only=True)
class VisionTowerConfig:
    """What the towers of fixed resolution and of NaFlex have in common; the defaults are base's.

    Raises `ConfigError` when the values contradict each other.
    """

    model_types: ClassVar[frozenset[str]]
    """What config.json may call the architecture."""
    model_type: ClassVar[str]
    """What config.json calls it where the tower stands alone."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    patch_size: int = 16
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    attention_dropout: float = 0.0
    vision_use_head: bool = True

    def __post_init__(self) -> None:
        """Check each value on its own, then the values against each other."""
        for field in fields(self):
            _check_value(field.name, getattr(self, field.name), field.default)
        if self.hidden_act not in ACTIVATIONS:
            raise ConfigError(
                f"hidden_act {self.hidden_act!r} is not one of {', '.join(ACTIVATIONS)}"
            )
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size {self.hidden_size} is not divisible by "
                f"num_attention_heads {self.num_attention_heads}"
            )

    @classmethod
    def describes(cls, config: dict[str, Any]) -> bool:
        """Tell whether a parsed config.json is of this architecture."""
        return _read_model_type(config) in cls.model_types

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> Self:
        """Read a parsed config.json: of a full model, of the vision tower alone, or a sparse one.

        Sparse files leave out what equals the class defaults. Other keys are ignored, as in
        transformers. Raises `ConfigError` for another architecture or an impossible value.
        """
        vision = _read_vision_config(config)
        cls._check_model_type(_read_model_type(config))
        names = {field.name for field in fields(cls)}
        known = {
            name: value for name, value in vision.items() if name in names and value is not None
        }
        for side in ("image_size", "patch_size"):
            if side in known:
                known[side] = _as_square_side(side, known[side])
        if "num_attention_heads" not in known:
            known["num_attention_heads"] = _published_heads(
                known.get("hidden_size", cls.hidden_size)
            )
        return cls(**known)

    def to_dict(self) -> dict[str, Any]:
        """Return what config.json holds where the tower stands alone; `from_dict` reads it."""
        return {"model_type": self.model_type} | asdict(self)

    @classmethod
    def _check_model_type(cls, model_type: str) -> None:
        if model_type not in cls.model_types:
            raise ConfigError(f"model_type {model_type!r} is not a SigLIP vision tower")


@dataclass(frozen=True, kw_only=True)
class SiglipVisionConfig(VisionTowerConfig):
    """Shape and constants of one vision tower; the defaults are siglip-base-patch16-224.

    Same fields and defaults as transformers' `SiglipVisionConfig`. Raises `ConfigError` when the
    values contradict each other.
    """

    model_types = frozenset({"siglip", "siglip_vision_model"})
    model_type = "siglip_vision_model"

    image_size: int = 224

    def __post_init__(self) -> None:
        """Check also that there is a patch."""
        super().__post_init__()
        if self.image_size < self.patch_size:
            raise ConfigError(
                f"image_size {self.image_size} is smaller than patch_size {self.patch_size}"
            )

    @property
    def grid_size(self) -> int:
        """Patches along one side; floors as the reference does: 384 px in patches of 14 is 27."""
        return self.image_size // self.patch_size

    @property
    def num_patches(self) -> int:
        """Patches, and so positions, of one image."""
        return self.grid_size**2

    @classmethod
    def from_shape(cls, shape: str) -> Self:
        """Build the configuration of a named shape: `base-patch16-224`, `so400m-patch14-384`."""
        sizes, image = read_shape(shape, r"[0-9]{1,4}", "<image pixels>")
        return cls(**sizes, image_size=int(image))

    @classmethod
    def _check_model_type(cls, model_type: str) -> None:
        if model_type in ("siglip2", "siglip2_vision_model"):
            raise ConfigError(
                f"model_type {model_type} (NaFlex) is for Siglip2VisionModel; this one is of fixed "
                "resolution"
            )
        super()._check_model_type(model_type)


def read_shape(shape: str, last: str, last_means: str) -> tuple[dict[str, Any], str]:
    """Split a named shape: -> sizes by configuration field, and its last part, which fits `last`.

    Raises `ConfigError`, which explains that part as `last_means`.
    """
    match = re.fullmatch(
        rf"(?P<size>[a-z0-9-]+)-patch(?P<patch>[0-9]{{1,3}})-(?P<last>{last})", shape
    )
    if match is None or match["size"] not in _SIZES:
        raise ConfigError(
            f"unknown shape {shape!r}: expected <size>-patch<pixels>-{last_means}, "
            f"size one of {', '.join(_SIZES)}"
        )
    hidden, intermediate, layers, heads = _SIZES[match["size"]]
    sizes = {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "patch_size": int(match["patch"]),
    }
    return sizes, match["last"]


def _check_value(name: str, value: object, default: object) -> None:
    if isinstance(default, bool) or isinstance(value, bool):
        valid = isinstance(value, bool) and isinstance(default, bool)
    elif isinstance(default, int):
        valid = isinstance(value, int) and 0 < value <= _LARGEST_SIZE
    elif isinstance(default, float):
        valid = isinstance(value, int | float) and 0 <= value < 1
    else:
        valid = isinstance(value, str)
    if not valid:
        raise ConfigError(f"{name} cannot be {value!r}")


def _read_vision_config(config: dict[str, Any]) -> dict[str, Any]:
    vision = config.get("vision_config", config)
    if vision is None:  # all defaults, as in the reference
        return {}
    if not isinstance(vision, dict):
        raise ConfigError("vision_config is not an object")
    return vision


def _read_model_type(config: dict[str, Any]) -> str:
    # `architectures` is missing from published SigLIP 2 files, so only model_type decides.
    model_type = _read_vision_config(config).get("model_type", config.get("model_type", "siglip"))
    return model_type if isinstance(model_type, str) else repr(model_type)


def _as_square_side(name: str, value: object) -> object:
    """Accept transformers' two-element form when both sides agree."""
    if isinstance(value, list | tuple):
        if len(value) != 2 or value[0] != value[1]:
            raise ConfigError(f"{name} must be square, got {value!r}")
        return value[0]
    return value


def _published_heads(hidden_size: object) -> int:
    if not isinstance(hidden_size, int) or isinstance(hidden_size, bool):
        return _PUBLISHED_HEADS[768]  # the size itself is refused later, and by its own name
    if hidden_size not in _PUBLISHED_HEADS:
        raise ConfigError(
            f"num_attention_heads is missing; hidden_size {hidden_size!r} does not tell it"
        )
    return _PUBLISHED_HEADS[hidden_size]
