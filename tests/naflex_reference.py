"""Reference checkpoints of NaFlex towers: transformers models with seeded lively weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import Siglip2Config, Siglip2Model, Siglip2VisionConfig, Siglip2VisionModel
from transformers.initialization import no_init_weights
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

from tests.reference import draw_lively_weights


@dataclass(frozen=True)
class NaflexCheckpoint:
    """A checkpoint folder, and the transformers model and processor that it was written by."""

    folder: Path
    model: Siglip2VisionModel
    processor: Siglip2ImageProcessorPil


def tiny_naflex_config(**changes: Any) -> Siglip2VisionConfig:
    """Describe a tower of 2 layers: patches of 8 pixels, 16 positions, 4 heads of 8."""
    tiny: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_patches": 16,
        "patch_size": 8,
    }
    return Siglip2VisionConfig(**tiny | changes)


def build_naflex_model(config: Siglip2VisionConfig, seed: int = 0) -> Siglip2VisionModel:
    """Build the reference tower with lively weights, ready for inference."""
    with no_init_weights():  # which takes seconds for wide towers, and is overwritten
        model = Siglip2VisionModel(config)
    draw_lively_weights(model, seed)
    return model.eval()


def write_naflex_checkpoint(
    folder: Path,
    config: Siglip2VisionConfig | None = None,
    *,
    keys: Literal["prefixed", "flat"] = "prefixed",
    max_num_patches: int = 24,
    seed: int = 0,
) -> NaflexCheckpoint:
    """Write the checkpoint of a new reference tower, by default the tiny one, into `folder`.

    With prefixed keys there is a minute text tower beside it, as in a published checkpoint.
    """
    model = build_naflex_model(config or tiny_naflex_config(), seed)
    saved = _build_full_model(model) if keys == "prefixed" else model
    saved.save_pretrained(folder)
    processor = Siglip2ImageProcessorPil(
        patch_size=model.config.patch_size, max_num_patches=max_num_patches
    )
    processor.save_pretrained(folder)
    return NaflexCheckpoint(folder, model, processor)


@torch.inference_mode()
def reference_vectors(checkpoint: NaflexCheckpoint, images: list[Any]) -> list[tuple[Any, Any]]:
    """Return pooled and patch vectors of each image, padding left out; None without a head."""
    inputs = checkpoint.processor(images, return_tensors="pt")
    outputs = checkpoint.model(**inputs)
    lengths = inputs["pixel_attention_mask"].sum(1).tolist()
    pooled, patches = outputs.pooler_output, outputs.last_hidden_state
    return [
        (None if pooled is None else pooled[i].numpy(), patches[i, :length].numpy())
        for i, length in enumerate(lengths)
    ]


def _build_full_model(vision_model: Siglip2VisionModel) -> Siglip2Model:
    text_config = {
        "vocab_size": 16,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "max_position_embeddings": 4,
        "projection_size": vision_model.config.hidden_size,
        "pad_token_id": 1,
        "bos_token_id": 2,
        "eos_token_id": 3,
    }
    smallest_tower = tiny_naflex_config(num_hidden_layers=1)
    model = Siglip2Model(Siglip2Config(text_config=text_config, vision_config=smallest_tower))
    model.vision_model = vision_model
    model.config.vision_config = vision_model.config
    return model.eval()
