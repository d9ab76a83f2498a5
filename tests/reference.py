"""Reference checkpoints: transformers models with seeded lively weights, saved in every spelling.

Freshly initialised towers answer every image almost alike, so a mistake hardly shows. Lively
weights make attention peaked, biases and layer norms count, and outputs differ between images.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from safetensors.torch import load, save_file
from transformers import (
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.initialization import no_init_weights

KeySpelling = Literal["prefixed", "flat", "nested", "nested flat"]
"""How the file names the tower's tensors.

`prefixed` is `vision_model.X` beside a text tower, as published; `flat` is `X` alone, as a tower
saved on its own; `nested` is `vision_tower.vision_model.X` inside a larger model, `nested flat`
`vision_tower.X` in one of transformers 5.6 and later.
"""

_NORMS = tuple(
    f"{norm}.weight" for norm in ("layer_norm1", "layer_norm2", "final_layer_norm", "layernorm")
)
_NESTINGS = {"nested": "vision_tower.vision_model.", "nested flat": "model.vision_tower."}


@dataclass(frozen=True)
class ReferenceCheckpoint:
    """A checkpoint folder, and the transformers model whose weights it holds."""

    folder: Path
    model: SiglipVisionModel


def tiny_vision_config(**changes: Any) -> SiglipVisionConfig:
    """Describe a tower of 2 layers that runs in a millisecond: 16 patches, 4 heads of 8."""
    tiny: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
    }
    return SiglipVisionConfig(**tiny | changes)


def draw_lively_weights(module: torch.nn.Module, seed: int = 0) -> None:
    """Redraw every parameter of a reference model or part, from `seed` alone.

    Activations keep their scale through the layers; queries, keys and the probe are drawn larger,
    so that attention has favourites.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.normal_(generator=generator)
            if name.endswith(_NORMS):
                parameter.mul_(0.3).add_(1)
            elif name.endswith("bias"):
                parameter.mul_(0.3)
            elif name.endswith("position_embedding.weight"):
                parameter.mul_(0.5)
            elif name.endswith("token_embedding.weight"):
                pass
            elif name.endswith("probe"):
                parameter.mul_(4)
            else:
                sharpness = 1.5 if name.endswith(("q_proj.weight", "k_proj.weight")) else 1.0
                parameter.mul_(sharpness * parameter[0].numel() ** -0.5)


def build_vision_model(config: SiglipVisionConfig, seed: int = 0) -> SiglipVisionModel:
    """Build the reference tower with lively weights, ready for inference."""
    with no_init_weights():  # which takes seconds for wide towers, and is overwritten
        model = SiglipVisionModel(config)
    draw_lively_weights(model, seed)
    return model.eval()


def build_full_model(vision_model: SiglipVisionModel) -> SiglipModel:
    """Put the tower beside a minute text tower, as in a published checkpoint."""
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
    smallest_tower = tiny_vision_config(num_hidden_layers=1)
    model = SiglipModel(SiglipConfig(text_config=text_config, vision_config=smallest_tower))
    model.vision_model = vision_model
    model.config.vision_config = vision_model.config
    return model.eval()


def write_checkpoint(
    folder: Path,
    config: SiglipVisionConfig | None = None,
    *,
    keys: KeySpelling = "prefixed",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = "50GB",
    sparse_config: bool = False,
    resample: Image.Resampling = Image.Resampling.BICUBIC,
) -> ReferenceCheckpoint:
    """Write the checkpoint of a new reference tower, by default the tiny one, into `folder`."""
    vision_model = build_vision_model(config or tiny_vision_config(), seed).to(dtype)
    save_checkpoint(
        vision_model,
        folder,
        keys=keys,
        max_shard_size=max_shard_size,
        sparse_config=sparse_config,
        resample=resample,
    )
    return ReferenceCheckpoint(folder, vision_model)


def save_checkpoint(
    vision_model: SiglipVisionModel,
    folder: Path,
    *,
    keys: KeySpelling = "prefixed",
    max_shard_size: str = "50GB",
    sparse_config: bool = False,
    resample: Image.Resampling = Image.Resampling.BICUBIC,
) -> None:
    """Save a reference tower and its image processor into `folder`, which is made if need be."""
    saved = build_full_model(vision_model) if keys == "prefixed" else vision_model
    saved.save_pretrained(folder, max_shard_size=max_shard_size)
    if keys in _NESTINGS:
        _nest_tower(folder, _NESTINGS[keys])
    if sparse_config:
        _thin_config(folder / "config.json")
    side = vision_model.config.image_size
    processor = SiglipImageProcessorPil(size={"height": side, "width": side}, resample=resample)
    processor.save_pretrained(folder)


def edit_json(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file; `None` is written as null."""
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


def edit_vision_config(folder: Path, **changes: Any) -> None:
    """Set keys of the vision part of a folder's config.json."""
    path = folder / "config.json"
    vision_config = json.loads(path.read_bytes())["vision_config"]
    edit_json(path, vision_config=vision_config | changes)


def edit_tensors(folder: Path, changes: dict[str, torch.Tensor | None]) -> None:
    """Set tensors of a folder's model.safetensors by key; `None` takes the tensor out."""
    path = folder / "model.safetensors"
    tensors = load(path.read_bytes()) | changes  # not mapped from the file to be overwritten
    save_file({key: tensor for key, tensor in tensors.items() if tensor is not None}, path)


def append_raw_tensor(path: Path, key: str, dtype: str, shape: list[int], data: bytes) -> None:
    """Add a tensor to a safetensors file as bytes, of any dtype that the format knows."""
    content = path.read_bytes()
    header_end = 8 + int.from_bytes(content[:8], "little")
    header, tensors = json.loads(content[8:header_end]), content[header_end:]
    offsets = [len(tensors), len(tensors) + len(data)]
    header[key] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
    written = json.dumps(header).encode()
    written += b" " * (-len(written) % 8)  # tensors begin aligned
    path.write_bytes(len(written).to_bytes(8, "little") + written + tensors + data)


def _nest_tower(folder: Path, prefix: str) -> None:
    """Rename a flat file's keys as a larger model spells them, with one tensor of that model."""
    path = folder / "model.safetensors"
    nested = {prefix + key: tensor for key, tensor in load(path.read_bytes()).items()}
    save_file(nested | {"language_model.norm": torch.ones(8)}, path)
    vision_config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(
        json.dumps({"model_type": "paligemma", "vision_config": vision_config})
    )


def _thin_config(path: Path) -> None:
    """Leave out of config.json all that equals the class defaults, as published files do."""
    config = json.loads(path.read_bytes())
    defaults = SiglipVisionConfig().to_dict() | {"model_type": None}
    vision = {
        key: value
        for key, value in config.get("vision_config", config).items()
        if key in defaults and value != defaults[key]
    }
    thin = {"model_type": config["model_type"], "vision_config": vision}
    path.write_text(json.dumps(thin if "vision_config" in config else vision))


def relative_difference(ours: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the largest difference in units of the reference's largest value."""
    assert ours.shape == reference.shape
    assert ours.dtype == reference.dtype
    return float((ours - reference).abs().max() / reference.abs().max())
