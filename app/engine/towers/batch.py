"""What goes into a tower and what comes out of it, for any family and any way to run it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
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


class FusedTower(Protocol):
    """A `Tower` of images that is rearranged for speed."""

    attention: str
    """How the images of a batch attend: together or one_by_one."""

    def __call__(self, *inputs: Any) -> Outputs:
        """Encode a batch."""
        ...


class Batch(NamedTuple):
    """Inputs of one forward: an array, which is written once, to where the device fetches it."""

    shape: tuple[int, ...]
    write: Callable[[Any], object]
    """Fills an array of that shape and dtype."""
    beside: tuple[Any, ...] = ()
    """Further inputs of the tower, beside the array: the grids of NaFlex images."""
    ends: Sequence[int] | None = None
    """Where each image's patches end, if `last_hidden_state` is packed: (patches of all, dim).

    These are cu_seqlens without the leading 0. None where it is (batch, patches, dim).
    """
    dtype: torch.dtype = torch.uint8

    def pick_wanted(self, outputs: Outputs, patches_of: int) -> dict[str, torch.Tensor]:
        """Return of a tower's outputs what `Vectors` is to have, by its name there.

        These are pooled vectors, where there is a head, and the patches of the first `patches_of`.
        """
        wanted = {"pooled": outputs.pooler_output} if outputs.pooler_output is not None else {}
        if not patches_of:
            return wanted
        end = patches_of if self.ends is None else self.ends[patches_of - 1]
        return wanted | {"patches": outputs.last_hidden_state[:end]}

    def collect(self, results: Mapping[str, Float32Array]) -> Vectors:
        """Make vectors of what `pick_wanted` left, once it is in host memory."""
        patches = results.get("patches")
        return Vectors(results.get("pooled"), None if patches is None else self._own(patches))

    def _own(self, patches: Float32Array) -> MaybeList:
        """Give each image its own patches."""
        if self.ends is None:
            return patches
        return np.split(patches, [end for end in self.ends if end < len(patches)])


Collate = Callable[[Any], Batch]
"""Makes a batch of images or of token ids."""


def write_rows(rows: Sequence[npt.NDArray[Any]] | npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
    """Copy arrays of one shape and dtype into the rows of another, which has as many.

    Raises `ValueError` for another shape or count, `TypeError` for another dtype or for an `out`
    that is not contiguous: nothing is broadcast or cast. NumPy gives up the interpreter's lock for
    each row and has to get it back, up to 5 ms later each time when other threads are busy. A
    memoryview keeps it: docs/decisions/0030-feeding.md.
    """
    if len(rows) != len(out):
        raise ValueError(f"{len(rows)} rows for {len(out)} places")
    size = out[0].nbytes
    into = out.data.cast("B")
    for place, row in enumerate(rows):
        if row.shape != out.shape[1:]:
            raise ValueError(f"a row of shape {row.shape} among rows of shape {out.shape[1:]}")
        if row.dtype != out.dtype:
            raise TypeError(f"a row of {row.dtype} among rows of {out.dtype}")
        into[place * size : (place + 1) * size] = row.reshape(-1).data.cast("B")


@torch.inference_mode()
def run_batch(tower: Tower, device: torch.device, batch: Batch, patches_of: int) -> Vectors:
    """Move a batch to the device, compute, and move the vectors back."""
    # From pinned memory a copy is queued like a kernel: nobody waits.
    inputs = torch.empty(batch.shape, dtype=batch.dtype, pin_memory=device.type == "cuda")
    batch.write(inputs.numpy())
    outputs = tower(inputs.to(device, non_blocking=True), *batch.beside)
    wanted = batch.pick_wanted(outputs, patches_of)
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
