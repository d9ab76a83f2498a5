"""A checkpoint with both towers, a vocabulary of 256,000 and a tokenizer; and texts for it."""

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from transformers import SiglipImageProcessorPil

from benchmarks.messages import text_request
from benchmarks.vocabularies import TOKENS, make_spiece_model, make_tokenizer_json
from model import SiglipConfig, SiglipModel, SiglipTextConfig, SiglipVisionConfig
from tests.tokenizer_files import write_siglip2_tokenizer, write_siglip_tokenizer

_WORDS = ("red", "bicycle", "street", "two", "cats", "in", "the", "snow", "at", "night", "a", "of")


@dataclass(frozen=True)
class TextCheckpoints:
    """One model in two folders that share its file: with either generation's tokenizer.

    `layer_weights` is how many the text tower has beside its token table.
    """

    siglip: Path
    siglip2: Path
    layer_weights: int


@contextmanager
def written_text_checkpoints(shape: str) -> Iterator[TextCheckpoints]:
    """Write a model of a named shape with its text tower, for as long as asked."""
    with tempfile.TemporaryDirectory(prefix="siglip-bench-") as folder:
        yield write_text_checkpoints(Path(folder), shape)


def write_text_checkpoints(folder: Path, shape: str) -> TextCheckpoints:
    """Write it in float32, as published ones are; the weights are drawn by seed, not trained."""
    vision = SiglipVisionConfig.from_shape(shape)
    same = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    text = SiglipTextConfig(vocab_size=TOKENS, **{name: getattr(vision, name) for name in same})
    model = SiglipModel.from_random(SiglipConfig(vision_config=vision, text_config=text))
    v1, v2 = folder / "siglip", folder / "siglip2"
    model.save_pretrained(v2)
    side = vision.image_size
    SiglipImageProcessorPil(size={"height": side, "width": side}).save_pretrained(v2)
    v1.mkdir()
    for path in v2.iterdir():
        (v1 / path.name).symlink_to(path)
    write_siglip2_tokenizer(v2, make_tokenizer_json())
    write_siglip_tokenizer(v1, make_spiece_model())
    table = model.text_model.embeddings.token_embedding.weight
    weights = sum(weight.numel() for weight in model.text_model.parameters())
    return TextCheckpoints(v1, v2, weights - table.numel())


def unseen_requests(seed: int, texts: int = 1) -> Iterator[bytes]:
    """Yield requests of so many texts, no two texts alike, so that none is remembered."""
    draw = random.Random(seed)  # noqa: S311 # nobody is to be surprised
    while True:
        yield text_request(*(_draw_text(draw) for _ in range(texts)))


def _draw_text(draw: random.Random) -> str:
    return f"{' '.join(draw.choices(_WORDS, k=8))} {draw.getrandbits(40):x}"
