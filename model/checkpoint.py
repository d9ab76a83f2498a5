"""A checkpoint's tensors: matched by their names, checked whole, read memory-mapped.

Only safetensors files are read, and of those only the vision tower's tensors. Loading is all or
nothing: a missing, unexpected or misshaped tensor is an error, which lists the first of each kind.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from model.checkpoint_folder import (
    explain_unreadable,
    find_checkpoint_folder,
    list_weight_files,
    read_json,
)
from model.errors import CheckpointError

# The tower's tensors, as `vision_model.X` or nested deeper (`vision_tower.vision_model.X`), else as
# `vision_tower.X`, in larger models that transformers has built since 5.6.
_TOWERS = tuple(
    re.compile(rf"(?P<prefix>(?:.*\.)?{tower}\.)(?P<name>.+)")
    for tower in ("vision_model", "vision_tower")
)
_LAYER = re.compile(r"encoder\.layers\.\d+\.")
_HEAD = "head."
# In a file with flat names, what may stand beside the tower.
_PARTS = ("embeddings.", "encoder.", "post_layernorm.", _HEAD)
_NOT_VISION = ("text_model.", "logit_scale", "logit_bias")
_LISTED_PROBLEMS = 5  # of each kind: an error is one line that a person reads


@dataclass(frozen=True)
class Checkpoint:
    """A folder of config.json, parsed, and safetensors files.

    `revision` is its hub commit, if any.
    """

    folder: Path
    revision: str | None
    config: dict[str, Any]
    weight_files: tuple[Path, ...]

    def read_vision_tensors(self, shapes: Mapping[str, torch.Size]) -> dict[str, torch.Tensor]:
        """Map the vision tower's tensors into memory, by their name inside the tower.

        Each layer has a mapping of its own: who drops its tensors gets their memory back.
        `shapes` is what the model expects. Nothing is read before every name and shape was checked;
        raises `CheckpointError` listing what is missing, unexpected or misshaped.
        """
        with ExitStack() as open_files:
            found: dict[str, Any] = {}
            paths: dict[str, Path] = {}
            for path in self.weight_files:
                file = open_files.enter_context(_open_weights(path))
                for key in file.keys():  # noqa: SIM118 # safe_open is not a mapping
                    if key in found:
                        raise CheckpointError(f"{path.name} repeats the tensor {key}")
                    found[key], paths[key] = file, path
            keys = _vision_keys(found)
            if not any(name.startswith(_HEAD) for name in shapes):  # turned off in config.json
                keys = {name: key for name, key in keys.items() if not name.startswith(_HEAD)}
            _check_tensors({name: found[key].get_slice(key) for name, key in keys.items()}, shapes)
        return _map_tensors(keys, paths)


def open_checkpoint(name_or_path: str | PathLike[str], revision: str | None = None) -> Checkpoint:
    """Find a checkpoint in a local folder or on the hub, and read its config.json.

    Raises `CheckpointError`, or `HubUnreachableError` when only the network is at fault.
    """
    folder, commit = find_checkpoint_folder(name_or_path, revision)
    config = read_json(folder / "config.json")
    return Checkpoint(folder, commit, config, list_weight_files(folder))


def _open_weights(path: Path) -> Any:
    with explain_unreadable(path), path.open("rb"):
        pass  # safe_open would say of every failure that there is no such file
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error


def _vision_keys(keys: Mapping[str, Any]) -> dict[str, str]:
    """Return the file's key of each tensor of the tower, by its name inside the tower."""
    keys = {
        key: None for key in keys if key.rpartition(".")[2] != "position_ids"
    }  # a constant some files carry
    matches = ([match for key in keys if (match := tower.fullmatch(key))] for tower in _TOWERS)
    nested = next(filter(None, matches), [])
    prefixes = sorted({match["prefix"] for match in nested})
    if len(prefixes) > 1:
        raise CheckpointError(
            f"the checkpoint holds more than one vision tower: {', '.join(prefixes)}"
        )
    if nested:
        tower = {match["name"]: match.string for match in nested}
        strays = [key for key in keys if key.startswith(_PARTS) and prefixes == ["vision_model."]]
        return tower | {key: key for key in strays if key not in tower}
    return {key: key for key in keys if not key.startswith(_NOT_VISION)}


def _map_tensors(keys: Mapping[str, str], paths: Mapping[str, Path]) -> dict[str, torch.Tensor]:
    """Map the tensors of each layer, as far as they lie in one file, by themselves."""
    mappings: dict[tuple[Path, str], list[str]] = {}
    for name, key in keys.items():
        layer = _LAYER.match(name)
        mappings.setdefault((paths[key], layer[0] if layer else ""), []).append(name)
    tensors = {}
    for (path, _), names in mappings.items():
        with _open_weights(path) as file:
            tensors.update({name: file.get_tensor(keys[name]) for name in names})
    return tensors


def _check_tensors(found: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> None:
    missing = [f"missing {name}" for name in shapes if name not in found]
    unexpected = [f"unexpected {name}" for name in found if name not in shapes]
    misshaped, quantised = [], []
    for name in shapes.keys() & found.keys():
        shape, dtype = list(found[name].get_shape()), found[name].get_dtype()
        if shape != list(shapes[name]):
            misshaped.append(f"misshaped {name}: {shape} instead of {list(shapes[name])}")
        elif dtype not in ("F64", "F32", "F16", "BF16"):
            quantised.append(f"quantised {name}: {dtype} is not supported")
    problems = [_list_first(kind) for kind in (misshaped, missing, quantised, unexpected) if kind]
    if problems:
        raise CheckpointError(f"the checkpoint does not fit its config.json: {'; '.join(problems)}")


def _list_first(problems: Sequence[str]) -> str:
    """Join the first problems of one kind, and say how many more there are."""
    listed = sorted(problems)[:_LISTED_PROBLEMS]
    more = len(problems) - len(listed)
    return "; ".join([*listed, f"and {more} more {problems[0].split()[0]}"] if more else listed)
