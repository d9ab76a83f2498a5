"""How a checkpoint's files get into a folder: all of them, or none."""

import os.path
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors import SafetensorError

from model.errors import CheckpointError


@contextmanager
def replace_files(folder: str | PathLike[str]) -> Iterator[Path]:
    """Give an empty folder to write files into; they then take the place of those in `folder`.

    `folder` is made if need be. Nothing in it changes before all files are written whole. Raises
    `CheckpointError` for what cannot be written.
    """
    path = Path(os.path.expanduser(folder))  # noqa: PTH111 # as a checkpoint's folder is found
    try:
        path.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".saving-", dir=path) as temporary:
            yield Path(temporary)
            for file in sorted(Path(temporary).iterdir()):
                file.replace(path / file.name)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path} cannot be written: {reason}") from error
