"""Batches of a few sizes: what is made once for a size serves every batch that is no larger."""

from collections.abc import Sequence


def bucket_sizes(max_batch_size: int) -> tuple[int, ...]:
    """Return the powers of two below the largest batch, and the largest batch."""
    powers = (2**exponent for exponent in range(max_batch_size.bit_length()))
    return (*(power for power in powers if power < max_batch_size), max_batch_size)


def pick_bucket(count: int, sizes: Sequence[int]) -> int:
    """Return the least of some rising sizes that so many fit into; raises `ValueError`."""
    for size in sizes:
        if count <= size:
            return size
    raise ValueError(f"{count} do not fit into the largest, {sizes[-1]}")
