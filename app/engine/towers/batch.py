"""What goes into a tower and what comes out of it, for any family and any way to run it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from app.engine.protocol import Float32Array, MaybeList, Vectors


class Outputs(Protocol):
    """What a tower gives, under the reference's names."""

    @property
    def last_hidden_state(self) -> torch.Tensor:
        """A row for each patch or token."""
        ...

    @property
    def pooler_output(self) -> torch.Tensor | None:
        """(batch, dim); None for a tower without pooling head."""
        ...


Tower = Callable[..., Outputs]
"""Takes a batch's array, once it is on the device, and what the batch has `beside`."""


def _keep_whole(rows: Float32Array) -> MaybeList:
    return rows


class Batch(NamedTuple):
    """Inputs of one forward: an array, which is written once, to where the device fetches it."""

    shape: tuple[int, ...]
    write: Callable[[Any], object]
    """Fills an array of that shape and dtype."""
    beside: tuple[Any, ...] = ()
    """What the tower takes beside the array."""
    split: Callable[[Float32Array], MaybeList] = _keep_whole
    """Gives each image its own rows of `last_hidden_state`."""
    dtype: torch.dtype = torch.uint8

    def collect(self, results: Mapping[str, Float32Array]) -> Vectors:
        """Make vectors of what `pick_wanted` left, once it is in host memory."""
        patches = results.get("patches")
        return Vectors(results.get("pooled"), None if patches is None else self.split(patches))


Collate = Callable[[Any], Batch]
"""Makes a batch of images or of token ids."""


def pick_wanted(outputs: Outputs, patches: bool) -> dict[str, torch.Tensor]:
    """Return of a tower's outputs what `Vectors` has, by its name there; without head no pooled."""
    wanted = {"pooled": outputs.pooler_output} if outputs.pooler_output is not None else {}
    return wanted | ({"patches": outputs.last_hidden_state} if patches else {})


@torch.inference_mode()
def run_batch(tower: Tower, device: torch.device, batch: Batch, patches: bool) -> Vectors:
    """Move a batch to the device, compute, and move the vectors back."""
    # From pinned memory a copy is queued like a kernel: nobody waits.
    inputs = torch.empty(batch.shape, dtype=batch.dtype, pin_memory=device.type == "cuda")
    batch.write(inputs.numpy())
    wanted = pick_wanted(tower(inputs.to(device, non_blocking=True), *batch.beside), patches)
    results = _download(device, *wanted.values())
    return batch.collect(
        {name: result.numpy() for name, result in zip(wanted, results, strict=True)}
    )


def join_vectors(parts: Sequence[Vectors]) -> Vectors:
    """Put the vectors of a batch's parts together again."""
    if len(parts) == 1:
        return parts[0]
    return Vectors(*map(_join_rows, zip(*parts, strict=True)))


def _join_rows(parts: Sequence[MaybeList | None]) -> MaybeList | None:
    """Put rows together that all parts have, or none has."""
    rows = [part for part in parts if part is not None]
    if rows and isinstance(rows[0], list):
        return [own for part in rows for own in part]
    return np.concatenate(rows) if rows else None


def _download(device: torch.device, *results: torch.Tensor) -> list[torch.Tensor]:
    """Bring results to the host as float32; with CUDA, by queued copies and one wait for all."""
    if device.type != "cuda":
        return [result.float().cpu() for result in results]
    copies = [torch.empty(result.shape, pin_memory=True) for result in results]
    for copy, result in zip(copies, results, strict=True):
        copy.copy_(result.float(), non_blocking=True)
    torch.cuda.current_stream(device).synchronize()
    return copies
