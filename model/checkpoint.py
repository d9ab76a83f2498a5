"""A checkpoint's tensors: matched by their names, checked whole, read memory-mapped.

Only safetensors files are read, and of those only the tensors that a model needs. Loading is all or
nothing: a missing, unexpected or misshaped tensor is an error, which lists the first of each kind.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from model.checkpoint_folder import (
    explain_unreadable,
    find_checkpoint_folder,
    list_weight_files,
    read_json,
)
from model.errors import CheckpointError
from model.tensor_rows import TensorRows
from model.tower_keys import TowerKeys

_LAYER = re.compile(r"encoder\.layers\.\d+\.")
_HEAD = "head."
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

    def has_tower(self, tower: TowerKeys) -> bool:
        """Tell whether the files hold tensors of a tower, without reading any."""
        with self._open() as opened:
            return tower.are_in(opened)

    def read_tower(
        self, tower: TowerKeys, shapes: Mapping[str, torch.Size]
    ) -> dict[str, torch.Tensor]:
        """Map one tower's tensors into memory, by their name inside the tower.

        Each layer has a mapping of its own: who drops its tensors gets their memory back.
        `shapes` is what the model expects. Nothing is read before every name and shape was checked;
        raises `CheckpointError` listing what is missing, unexpected or misshaped.
        """
        with self._open() as opened:
            keys = tower.match(opened)
            if not any(name.startswith(_HEAD) for name in shapes):  # turned off in config.json
                keys = {name: key for name, key in keys.items() if not name.startswith(_HEAD)}
            return _read_checked(opened, keys, shapes)

    def read_tensors(self, shapes: Mapping[str, torch.Size]) -> dict[str, torch.Tensor]:
        """Map what stands beside the towers, by its full name; errors as `read_tower`."""
        with self._open() as opened:
            return _read_checked(opened, {name: name for name in shapes if name in opened}, shapes)

    def read_numbers(self, tower: TowerKeys, names: Iterable[str]) -> dict[str, float]:
        """Read tensors of one element, of any shape, that stand beside a tower; by their name.

        Those that are not there, or have more elements, are left out.
        """
        with self._open() as opened:
            prefix = tower.prefix(opened)
            found = {name: opened[prefix + name].file for name in names if prefix + name in opened}
            return {
                name: float(file.get_tensor(prefix + name))
                for name, file in found.items()
                if prod(file.get_slice(prefix + name).get_shape()) == 1
            }

    def open_rows(self, tower: TowerKeys, name: str) -> TensorRows:
        """Give the rows of one tensor of a tower, none of them in memory.

        Raises `CheckpointError` where there is no such tensor.
        """
        with self._open() as opened:
            key = tower.match(opened).get(name)
            if key is None:
                raise CheckpointError(f"the checkpoint has no {name}")
            return TensorRows(opened[key].path, key)

    @contextmanager
    def _open(self) -> Iterator[dict[str, "_OpenFile"]]:
        """Open all files, and give the one that each tensor is in."""
        with ExitStack() as open_files:
            opened: dict[str, _OpenFile] = {}
            for path in self.weight_files:
                file = open_files.enter_context(_open_weights(path))
                for key in file.keys():  # noqa: SIM118 # safe_open is not a mapping
                    if key in opened:
                        raise CheckpointError(f"{path.name} repeats the tensor {key}")
                    opened[key] = _OpenFile(path, file)
            yield opened


class _OpenFile(NamedTuple):
    path: Path
    file: Any


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


def _read_checked(
    opened: Mapping[str, _OpenFile], keys: Mapping[str, str], shapes: Mapping[str, torch.Size]
) -> dict[str, torch.Tensor]:
    found = {name: opened[key].file.get_slice(key) for name, key in keys.items()}
    _check_tensors(found, shapes)
    return _map_tensors(keys, {key: opened[key].path for key in keys.values()})


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
