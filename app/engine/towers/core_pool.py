"""A batch on the CPU: threads that each compute on one core, on a few images at a time."""

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Protocol, Self, TypeVar

import torch

# So many patches go through a core together. Fewer make the matrix products slow. With more a
# layer's activations leave the cache, and become blocks that the allocator gives back to the system
# after each use: docs/performance.md.
_PATCHES_OF_A_CORE = 1200


class Images(Protocol):
    """A tensor, or a list, of images."""

    def __len__(self) -> int: ...

    def __getitem__(self, some: slice, /) -> Self: ...


SomeImages = TypeVar("SomeImages", bound=Images)
Result = TypeVar("Result")


class CorePool:
    """Computes batches on the CPU's cores, for one thread at a time.

    `max_patches` is the number of patches that an image may have. On another device than the CPU it
    computes a batch as it is.
    """

    def __init__(self, device: torch.device, max_patches: int) -> None:
        on_cpu = device.type == "cpu"
        self._threads = torch.get_num_threads() if on_cpu else 1
        self._images_of_a_core = max(1, _PATCHES_OF_A_CORE // max_patches) if on_cpu else None
        self._pool = start_core_pool(self._threads)

    def test_sizes(self, max_batch_size: int) -> Sequence[int]:
        """Return the sizes of batches to test: one image is all cores', and then each takes two."""
        return sorted({1, min(2 * self._threads, max_batch_size)})

    def map(self, forward: Callable[[SomeImages], Result], images: SomeImages) -> list[Result]:
        """Compute all images, in parts: return the results of these, in the images' order.

        Each core takes whole images where that comes out even, since threads that do never wait for
        one another; else all cores share each matrix product. Raises what `forward` raises, when
        no part is computed any more.
        """
        if self._threads == 1 or len(images) % self._threads:
            return self._compute(forward, images, self._threads)
        shares = [
            self._pool.submit(self._compute, forward, share, 1)
            for share in _split(images, self._threads)
        ]
        wait(shares)
        return [result for share in shares for result in share.result()]

    def _compute(
        self, forward: Callable[[SomeImages], Result], images: SomeImages, cores: int
    ) -> list[Result]:
        if self._images_of_a_core is None:
            return [forward(images)]
        parts = math.ceil(len(images) / (self._images_of_a_core * cores))
        return [forward(part) for part in _split(images, parts)]


def start_core_pool(threads: int) -> ThreadPoolExecutor:
    """Start as many threads, in each of which PyTorch takes one core.

    To set the number of cores is to set it for the calling thread, and for all threads that have
    not begun to compute: so these all begin here, and then the number for others is put back.
    """
    for_others = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "forward", _keep_to_one_core)
    all_here = threading.Barrier(threads)
    wait([pool.submit(all_here.wait) for _ in range(threads)])
    torch.set_num_threads(for_others)
    return pool


def _split(images: SomeImages, parts: int) -> list[SomeImages]:
    """Divide images into so many parts at most, of one size but for the last."""
    size = math.ceil(len(images) / parts)
    return [images[start : start + size] for start in range(0, len(images), size)]


def _keep_to_one_core() -> None:
    torch.get_num_threads()  # a thread that has not asked takes the number of all when it computes
    torch.set_num_threads(1)
