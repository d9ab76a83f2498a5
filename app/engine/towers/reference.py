"""The forward of a model in float32: what the fast one is held to, and what overflows it."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from app.engine.protocol import Int64Array, Pixels, Vectors
from app.engine.towers.batch import join_vectors, run_batch
from app.engine.towers.family import AnyFamily
from model import SiglipTextModel
from model.image_processing_base import BaseImageProcessor
from model.pretrained import PreTrainedVisionModel

# Images in one forward in float32 beside the other tower: few of a batch overflow.
_AT_ONCE = 8

Model = TypeVar("Model", bound=nn.Module)


def in_float32(model: Model, shared: Sequence[torch.Tensor] = ()) -> Model:
    """Return the model, or a copy that computes in float32; its weights stay as in their file.

    Those `shared` are neither copied nor cast: a table is only looked up.
    """
    if all(weight.dtype == torch.float32 for weight in model.parameters()):
        return model
    own = copy.deepcopy(model, {id(weight): weight for weight in shared})
    for parameter in own.parameters():
        if not any(parameter is weight for weight in shared):
            parameter.data = parameter.data.float()
    return own


@torch.inference_mode()
def embed_plainly(
    model: PreTrainedVisionModel[Any], processor: BaseImageProcessor, pixels: Pixels
) -> Vectors:
    """Compute what the processor's `resize` gave with the plain modules.

    uint8 (height, width, 3) each -> pooled (batch, dim), None without head, and patches (batch,
    patches, dim), of NaFlex images a list of (own patches, dim).
    """
    inputs = processor.collate(list(pixels))
    outputs = model(inputs)
    pooled, patches = outputs.pooler_output, outputs.last_hidden_state.numpy()
    mask = inputs.get("pixel_attention_mask")
    if mask is not None:  # there is padding
        lengths = mask.sum(1).tolist()
        patches = [rows[:length] for rows, length in zip(patches, lengths, strict=True)]
    return Vectors(None if pooled is None else pooled.numpy(), patches)


@torch.inference_mode()
def embed_texts_plainly(model: SiglipTextModel, input_ids: Sequence[Int64Array]) -> Vectors:
    """Compute token ids, int64 (tokens,) of each text, with the plain modules: -> (batch, dim)."""
    pooled: torch.Tensor = model(torch.from_numpy(np.stack(input_ids))).pooler_output
    return Vectors(pooled.float().numpy())


def load_float32_tower(
    load: Callable[[], PreTrainedVisionModel[Any]],
    family: AnyFamily,
    processor: BaseImageProcessor,
    device: torch.device,
) -> Callable[[Pixels], Vectors]:
    """Load a fused tower in float32 on a device; what is returned gives vectors as `embed_plainly`.

    There the plain forward would keep the inference thread for seconds an image.
    """
    tower = family.fused_tower(load().vision_model, processor, device, torch.float32, consume=True)

    def embed(pixels: Pixels) -> Vectors:
        parts = [pixels[at : at + _AT_ONCE] for at in range(0, len(pixels), _AT_ONCE)]
        return join_vectors(
            [run_batch(tower, device, family.collate(processor, p), len(p)) for p in parts]
        )

    return embed
