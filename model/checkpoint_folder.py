"""A checkpoint's folder and files: found on disk or fetched from the Hugging Face hub."""

import hashlib
import json
import os.path
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from model.errors import CheckpointError

_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")


def check_digests(folder: Path, sha256: Sequence[str]) -> None:
    """Compare a folder's weight files with their expected SHA-256, hex digits in name order.

    Raises `CheckpointError` naming the first file that differs.
    """
    files = list_weight_files(folder)
    if len(sha256) != len(files):
        raise CheckpointError(f"{len(sha256)} SHA-256 for {len(files)} weight files are given")
    for path, expected in zip(files, sha256, strict=True):
        with explain_unreadable(path), path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        if actual != expected.lower():
            raise CheckpointError(f"{path.name} has the SHA-256 {actual}, not {expected}")


def find_checkpoint_folder(
    name_or_path: str | PathLike[str], revision: str | None = None
) -> tuple[Path, str | None]:
    """Return a checkpoint's local folder, downloaded if need be, and its hub commit, if any."""
    name = fspath(name_or_path)
    path = Path(os.path.expanduser(name))  # noqa: PTH111 # Path's own raises for an unknown user
    mode = _read_mode(path)
    if name and stat.S_ISDIR(mode):
        if revision:
            raise CheckpointError(f"{name} is a folder; a revision is for hub models")
        return path, None
    if stat.S_ISREG(mode) or path.suffix in _PICKLE_SUFFIXES:
        raise CheckpointError(
            f"{name} is no folder; only folders with config.json and safetensors are read"
        )
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise CheckpointError(
            f"there is no folder {name}, and it is no hub id of the form owner/name"
        )
    from model.hub import download_checkpoint  # takes a quarter of a second that a folder can save

    folder = download_checkpoint(name, revision)
    return folder, folder.name  # the hub's cache names a snapshot's folder by its commit


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object; raises `CheckpointError` when the file is missing or is none."""
    with explain_unreadable(path):
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise CheckpointError(f"{path.parent} has no {path.name}") from None
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return content


def read_json_if_any(path: Path) -> dict[str, Any] | None:
    """Read one JSON object, or None where there is no such file; raises as `read_json`."""
    return read_json(path) if _is_file(path) else None


def _read_mode(path: Path) -> int:
    """Return the file type bits of what is at a path, 0 for nothing."""
    with explain_unreadable(path):
        try:
            return path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError, ValueError):  # the last for a null byte
            return 0


def _is_file(path: Path) -> bool:
    return stat.S_ISREG(_read_mode(path))


@contextmanager
def explain_unreadable(path: Path) -> Iterator[None]:
    """Raise `CheckpointError` in one line for what the system refuses."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error


def list_weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the safetensors files of a folder: the single one, or all shards of the index."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if _is_file(single):
        return (single,)
    if _is_file(index):
        return _shards(index)
    with explain_unreadable(folder):
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLE_SUFFIXES)
    if pickles:
        raise CheckpointError(
            f"{folder} has only {', '.join(pickles)}: such files can run code when opened, "
            "so only safetensors are read"
        )
    raise CheckpointError(f"{folder} has no model.safetensors")


def _shards(index: Path) -> tuple[Path, ...]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map")
    shards = []
    for name in sorted(set(map(str, weight_map.values()))):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{index} names {name!r}, which is no safetensors file beside it")
        if not _is_file(index.parent / name):
            raise CheckpointError(f"{index} names {name}, which is missing")
        shards.append(index.parent / name)
    return tuple(shards)
