"""Sequences of unequal length, one after the other, and as a padded batch."""

from collections.abc import Sequence
from itertools import accumulate

import torch


class Packing:
    """How rows of several images lie in one packed sequence, without any padding.

    Built on the host; what it needs on the device is moved there once.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self.lengths, self._device = list(lengths), device
        mask = torch.arange(max(lengths)) < torch.tensor(self.lengths)[:, None]
        self.mask = _move(mask, device)
        """True for the rows of an image, false for padding: (batch, longest)."""
        rows = mask.flatten().nonzero()[:, 0]  # counted on the host, so nobody waits for the device
        self._rows = _move(rows, device)

    def starts(self) -> torch.Tensor:
        """Return where each image begins, and where the last one ends: int32 (images + 1,).

        Attention of variable length calls it cu_seqlens.
        """
        ends = torch.tensor([0, *accumulate(self.lengths)], dtype=torch.int32)
        return _move(ends, self._device)

    def split(self, packed: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Split packed rows by image: (rows, width) -> (own rows, width) each."""
        return torch.split(packed, self.lengths)

    def pad(self, packed: torch.Tensor) -> torch.Tensor:
        """Give each image the longest length: (rows, width) -> (batch, longest, width)."""
        padded = packed.new_zeros(self.mask.numel(), packed.shape[-1])
        return padded.index_copy_(0, self._rows, packed).view(*self.mask.shape, -1)

    def unpad(self, padded: torch.Tensor) -> torch.Tensor:
        """Undo `pad`: (batch, longest, width) -> (rows, width)."""
        return padded.flatten(0, 1).index_select(0, self._rows)


def _move(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Queue a copy to the device; from other memory than pinned it would wait for all before it."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
