"""The published SigLIP and SigLIP 2 models, and what the towers of each cost.

Figures follow from the shape alone; nothing here needs a checkpoint.
"""

from dataclasses import dataclass, fields, replace

from model.config import SiglipVisionConfig
from model.config_encoder import EncoderConfig
from model.config_siglip_text import SiglipTextConfig

# Tokens of each tokenizer.
_ENGLISH, _MULTILINGUAL, _GEMMA = 32_000, 250_000, 256_000
_NAFLEX_PATCHES_AS = "256"  # the default number of patches is that of a square of so many pixels


@dataclass(frozen=True)
class PublishedModel:
    """A model on the hub; `shape` is its vision tower's name for random weights."""

    name: str
    shape: str
    vocab_size: int
    max_text_tokens: int = 64

    @property
    def config(self) -> SiglipVisionConfig:
        """The tower's shape; of NaFlex, that of a square image with its default patches."""
        return SiglipVisionConfig.from_shape(self.shape.replace("naflex", _NAFLEX_PATCHES_AS))

    @property
    def text_config(self) -> SiglipTextConfig:
        """The text tower's shape: as wide and deep as the vision tower; giant-opt has so400m's."""
        encoder = replace(self, shape=self.shape.replace("giant-opt", "so400m")).config
        return SiglipTextConfig(
            **{field.name: getattr(encoder, field.name) for field in fields(EncoderConfig)},
            vocab_size=self.vocab_size,
            max_position_embeddings=self.max_text_tokens,
            projection_size=self.config.hidden_size,
        )


def _published(
    family: str, *shapes: str, suffix: str = "", vocab_size: int
) -> list[PublishedModel]:
    return [
        PublishedModel(f"google/{family}-{shape}{suffix}", shape, vocab_size) for shape in shapes
    ]


PUBLISHED_MODELS: tuple[PublishedModel, ...] = (
    *_published(
        "siglip",
        "base-patch16-224",
        "base-patch16-256",
        "base-patch16-384",
        "base-patch16-512",
        "large-patch16-256",
        "large-patch16-384",
        "so400m-patch14-384",
        vocab_size=_ENGLISH,
    ),
    PublishedModel("google/siglip-so400m-patch14-224", "so400m-patch14-224", _ENGLISH, 16),
    *_published("siglip", "base-patch16-256", suffix="-multilingual", vocab_size=_MULTILINGUAL),
    *_published("siglip", "so400m-patch16-256", suffix="-i18n", vocab_size=_MULTILINGUAL),
    *_published(
        "siglip2",
        "base-patch32-256",
        "base-patch16-224",
        "base-patch16-256",
        "base-patch16-384",
        "base-patch16-512",
        "large-patch16-256",
        "large-patch16-384",
        "large-patch16-512",
        "so400m-patch14-224",
        "so400m-patch14-384",
        "so400m-patch16-256",
        "so400m-patch16-384",
        "so400m-patch16-512",
        "giant-opt-patch16-256",
        "giant-opt-patch16-384",
        "base-patch16-naflex",
        "so400m-patch16-naflex",
        vocab_size=_GEMMA,
    ),
    # Its texts are taken to be those of siglip-so400m, which it was trained from.
    PublishedModel("google/medsiglip-448", "so400m-patch14-448", _ENGLISH),
)


def forward_flop(config: SiglipVisionConfig) -> int:
    """Count the operations for one image as the architecture defines them: 2 x multiply-adds.

    Norms, softmax, GELU and biases are left out, as everyone does. 35.4e9 for base-patch16-224.
    """
    patches, hidden, inner = config.num_patches, config.hidden_size, config.intermediate_size
    embedding = patches * config.num_channels * config.patch_size**2 * hidden
    head = 2 * hidden**2 * (patches + 1) + 2 * patches * hidden + 2 * hidden * inner
    return 2 * (embedding + _multiply_adds_of_layers(config, patches) + head)


def forward_text_flop(config: SiglipTextConfig) -> int:
    """Count the operations for one text in the same way. 11.0e9 for siglip-base-patch16-224."""
    layers = _multiply_adds_of_layers(config, config.max_position_embeddings)
    return 2 * (layers + config.hidden_size * config.projection_size)


def _multiply_adds_of_layers(config: EncoderConfig, tokens: int) -> int:
    hidden, inner = config.hidden_size, config.intermediate_size
    linears = tokens * (4 * hidden**2 + 2 * hidden * inner)
    attention = 2 * tokens**2 * hidden  # scores, weighted sum
    return config.num_hidden_layers * (linears + attention)


def count_parameters(config: SiglipVisionConfig) -> int:
    """Count the weights of the tower with its pooling head. 92,884,224 for base-patch16-224."""
    hidden, norm = config.hidden_size, 2 * config.hidden_size
    embedding = hidden * (config.num_channels * config.patch_size**2 + 1 + config.num_patches)
    head = hidden + _count_block_parameters(config) - norm
    return embedding + config.num_hidden_layers * _count_block_parameters(config) + norm + head


def count_text_parameters(config: SiglipTextConfig) -> int:
    """Count the weights of a text tower. 110,271,744 for siglip-base-patch16-224."""
    hidden, projection = config.hidden_size, config.projection_size
    embedding = hidden * (config.vocab_size + config.max_position_embeddings)
    layers = config.num_hidden_layers * _count_block_parameters(config)
    return embedding + layers + 2 * hidden + projection * (hidden + 1)


def _count_block_parameters(config: EncoderConfig) -> int:
    """Count the weights of one layer: attention, MLP, two norms; a pooling head has one norm."""
    hidden, inner = config.hidden_size, config.intermediate_size
    attention = 4 * (hidden**2 + hidden)
    mlp = 2 * hidden * inner + inner + hidden
    return attention + mlp + 4 * hidden
