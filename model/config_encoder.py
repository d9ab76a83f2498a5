"""What the configurations of all towers share, and the reader for every config.json of one."""

from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any, ClassVar, Self

from model.errors import ConfigError

ACTIVATIONS = ("gelu_pytorch_tanh", "gelu")

# Heads cannot be read off tensor shapes, so a config.json that leaves them out is completed from
# the published architectures only.
_PUBLISHED_HEADS = MappingProxyType({768: 12, 1024: 16, 1152: 16, 1536: 16})

# Beyond any model; keeps nonsense from becoming an allocation.
_LARGEST_SIZE = 2**16
_LARGEST_VOCABULARY = 2**22


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Shape and constants of a stack of transformer layers; the defaults are base's.

    Raises `ConfigError` when the values contradict each other.
    """

    section: ClassVar[str]
    """Where config.json of a full model has it."""
    model_types: ClassVar[frozenset[str]]
    """What config.json may call the architecture."""
    model_type: ClassVar[str]
    """What config.json calls it where the tower stands alone."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    attention_dropout: float = 0.0

    def __post_init__(self) -> None:
        """Check each value on its own, then the values against each other."""
        for field in fields(self):
            _check_value(field.name, getattr(self, field.name), field.type)
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
        return cls._read_model_type(config) in cls.model_types

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> Self:
        """Read a parsed config.json: of a full model, of the tower alone, or a sparse one.

        Sparse files leave out what equals the class defaults. Other keys are ignored, as in
        transformers. Raises `ConfigError` for another architecture or an impossible value.
        """
        own = cls._read_section(config)
        cls._check_model_type(cls._read_model_type(config))
        names = {field.name for field in fields(cls)}
        known = {
            name: cls._read_value(name, value)
            for name, value in own.items()
            if name in names and value is not None
        }
        if "num_attention_heads" not in known:
            known["num_attention_heads"] = _published_heads(
                known.get("hidden_size", cls.hidden_size)
            )
        return cls(**known)

    def to_dict(self) -> dict[str, Any]:
        """Return what config.json holds where the tower stands alone; `from_dict` reads it."""
        return {"model_type": self.model_type} | asdict(self)

    @classmethod
    def _read_section(cls, config: dict[str, Any]) -> dict[str, Any]:
        own = config.get(cls.section, config)
        if own is None:  # all defaults, as in the reference
            return {}
        if not isinstance(own, dict):
            raise ConfigError(f"{cls.section} is not an object")
        return own

    @classmethod
    def _read_model_type(cls, config: dict[str, Any]) -> str:
        # `architectures` is missing from published SigLIP 2 files, so only model_type decides.
        own = cls._read_section(config)
        model_type = own.get("model_type", config.get("model_type", "siglip"))
        return model_type if isinstance(model_type, str) else repr(model_type)

    @classmethod
    def _check_model_type(cls, model_type: str) -> None:
        if model_type not in cls.model_types:
            raise ConfigError(f"model_type {model_type!r} is not a SigLIP {cls.section[:-7]} tower")

    @classmethod
    def _read_value(cls, name: str, value: Any) -> Any:  # noqa: ARG003 # for those who differ
        """Return a value of config.json as the field has it."""
        return value


def _check_value(name: str, value: object, kind: object) -> None:
    if kind is bool or isinstance(value, bool):
        valid = isinstance(value, bool) and kind is bool
    elif kind is int:
        largest = _LARGEST_VOCABULARY if name == "vocab_size" else _LARGEST_SIZE
        valid = isinstance(value, int) and 0 < value <= largest
    elif kind is float:
        valid = isinstance(value, int | float) and 0 <= value < 1
    else:
        valid = isinstance(value, str)
    if not valid:
        raise ConfigError(f"{name} cannot be {value!r}")


def _published_heads(hidden_size: object) -> int:
    if not isinstance(hidden_size, int) or isinstance(hidden_size, bool):
        return _PUBLISHED_HEADS[768]  # the size itself is refused later, and by its own name
    if hidden_size not in _PUBLISHED_HEADS:
        raise ConfigError(
            f"num_attention_heads is missing; hidden_size {hidden_size!r} does not tell it"
        )
    return _PUBLISHED_HEADS[hidden_size]
