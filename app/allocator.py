"""How memory is got and given back: by the C library, and by torch."""

import ctypes
import os
from contextlib import suppress

# Of mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# Of madvise(2).
_MADV_HUGEPAGE = 14
_MADV_COLLAPSE = 25
_HUGE_PAGE_BYTES = 2**21
# Below the blocks of 16 MiB in which Pillow takes the memory of an image.
_LARGE_BYTES = 15_000_000


def configure_allocators() -> None:
    """Give large blocks back at once, keep small ones, and put tensors on huge pages.

    - By itself glibc comes to keep freed blocks of up to 32 MiB, for each thread: after a few large
      images hundreds of MiB that nothing needs.
    - Told what is large, it would hand back the free end of a heap from 128 KiB on, and every layer
      would get its activations as pages to be zeroed anew. So it may keep twice the size of a
      large block, which is the ratio that it keeps to by itself.

    Does nothing where the C library is another, or has no huge pages.
    """
    use_huge_pages()
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 2 * _LARGE_BYTES)


def give_back_memory() -> None:
    """Give back what has been freed and is kept, as far as the C library can."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def move_to_huge_pages(address: int, size: int) -> None:
    """Put memory that is in use on huge pages, and what shares these; from Linux 6.1 on.

    What allocates the packed weights does not ask for them. Does nothing where it cannot be.
    """
    start = address - address % _HUGE_PAGE_BYTES
    size = -(-(address + size - start) // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES
    with suppress(AttributeError, OSError):
        madvise = ctypes.CDLL(None).madvise
        for advice in (_MADV_HUGEPAGE, _MADV_COLLAPSE):  # the first makes one mapping of several
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), advice)


def use_huge_pages() -> None:
    """Let torch ask for huge pages, unless its environment says otherwise: docs/performance.md.

    To be called before it allocates: it reads the variable then.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
