"""How memory is got and given back: by the C library, and by torch."""

import ctypes
import os
from contextlib import suppress

# Of mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
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


def use_huge_pages() -> None:
    """Let torch ask for huge pages, unless its environment says otherwise: docs/performance.md.

    To be called before it allocates: it reads the variable then.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
