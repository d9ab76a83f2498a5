"""Configuration of the text towers: SigLIP's, and SigLIP 2's, which is of the same architecture."""

from dataclasses import dataclass

from model.config_encoder import EncoderConfig


@dataclass(frozen=True, kw_only=True)
class SiglipTextConfig(EncoderConfig):
    """Shape and constants of one text tower; the defaults are siglip-base-patch16-224.

    Same fields and defaults as transformers' `SiglipTextConfig`, without its ids of special tokens,
    which do not fit the tokenizers. Raises `ConfigError` when the values contradict each other.
    """

    section = "text_config"
    model_types = frozenset({"siglip", "siglip2", "siglip_text_model", "siglip2_text_model"})
    model_type = "siglip_text_model"

    vocab_size: int = 32000
    max_position_embeddings: int = 64
    projection_size: int = None  # type: ignore[assignment] # then it is hidden_size

    def __post_init__(self) -> None:
        """Complete the projection size first."""
        if self.projection_size is None:
            object.__setattr__(self, "projection_size", self.hidden_size)
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class Siglip2TextConfig(SiglipTextConfig):
    """The same under the name that NaFlex checkpoints give it."""

    model_type = "siglip2_text_model"
