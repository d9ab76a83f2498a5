"""The plain forward of a model, in float32 on the CPU: what the fast one is held to."""

import copy
from typing import Any

import torch

from app.engine.protocol import Pixels, Vectors
from model.image_processing_base import BaseImageProcessor
from model.pretrained import PreTrainedVisionModel

Model = PreTrainedVisionModel[Any]


def in_float32(model: Model) -> Model:
    """Return the model, or a copy that computes in float32; its weights stay as in their file."""
    if all(weight.dtype == torch.float32 for weight in model.parameters()):
        return model
    return copy.deepcopy(model).float()


@torch.inference_mode()
def embed_plainly(model: Model, processor: BaseImageProcessor, pixels: Pixels) -> Vectors:
    """Compute what the processor's `resize` gave with the plain modules."""
    inputs = processor.collate(list(pixels))
    outputs = model(inputs)
    pooled, patches = outputs.pooler_output, outputs.last_hidden_state.numpy()
    mask = inputs.get("pixel_attention_mask")
    if mask is not None:  # there is padding
        lengths = mask.sum(1).tolist()
        patches = [rows[:length] for rows, length in zip(patches, lengths, strict=True)]
    return Vectors(None if pooled is None else pooled.numpy(), patches)
