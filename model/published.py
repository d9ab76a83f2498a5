"""The published SigLIP and SigLIP 2 vision towers, and what each costs.

Figures follow from the shape alone; nothing here needs a checkpoint.
"""

from dataclasses import dataclass

from model.config import SiglipVisionConfig

_NAFLEX_PATCHES_AS = "256"  # the default number of patches is that of a square of so many pixels


@dataclass(frozen=True)
class PublishedModel:
    """A vision tower on the hub; `shape` is its name for random weights."""

    name: str
    shape: str

    @property
    def config(self) -> SiglipVisionConfig:
        """The tower's shape; of NaFlex, that of a square image with its default patches."""
        return SiglipVisionConfig.from_shape(self.shape.replace("naflex", _NAFLEX_PATCHES_AS))


def _published(family: str, *shapes: str, suffix: str = "") -> list[PublishedModel]:
    return [PublishedModel(f"google/{family}-{shape}{suffix}", shape) for shape in shapes]


PUBLISHED_MODELS: tuple[PublishedModel, ...] = (
    *_published(
        "siglip",
        "base-patch16-224",
        "base-patch16-256",
        "base-patch16-384",
        "base-patch16-512",
        "large-patch16-256",
        "large-patch16-384",
        "so400m-patch14-224",
        "so400m-patch14-384",
    ),
    *_published("siglip", "base-patch16-256", suffix="-multilingual"),
    *_published("siglip", "so400m-patch16-256", suffix="-i18n"),
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
    ),
    PublishedModel("google/medsiglip-448", "so400m-patch14-448"),
)


def forward_flop(config: SiglipVisionConfig) -> int:
    """Count the operations for one image as the architecture defines them: 2 x multiply-adds.

    Norms, softmax, GELU and biases are left out, as everyone does. 35.4e9 for base-patch16-224.
    """
    patches, hidden, inner = config.num_patches, config.hidden_size, config.intermediate_size
    embedding = patches * config.num_channels * config.patch_size**2 * hidden
    linears = patches * (4 * hidden**2 + 2 * hidden * inner)
    attention = 2 * patches**2 * hidden  # scores, weighted sum
    head = 2 * hidden**2 * (patches + 1) + 2 * patches * hidden + 2 * hidden * inner
    return 2 * (embedding + config.num_hidden_layers * (linears + attention) + head)


def count_parameters(config: SiglipVisionConfig) -> int:
    """Count the weights of the tower with its pooling head. 92,884,224 for base-patch16-224."""
    hidden, inner = config.hidden_size, config.intermediate_size
    norm = 2 * hidden
    attention = 4 * (hidden**2 + hidden)
    mlp = 2 * hidden * inner + inner + hidden
    embedding = hidden * (config.num_channels * config.patch_size**2 + 1 + config.num_patches)
    layers = config.num_hidden_layers * (attention + mlp + 2 * norm)
    head = hidden + attention + norm + mlp
    return embedding + layers + norm + head
