"""How the C library's allocator treats the memory of large images, and of activations."""

import ctypes
from contextlib import suppress

# Of mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# Below the blocks of 16 MiB in which Pillow takes the memory of an image.
_LARGE_BYTES = 15_000_000


def return_large_blocks() -> None:
    """Let glibc give freed blocks of that size back to the system at once, and keep smaller ones.

    By itself it comes to keep blocks of up to 32 MiB, for each thread: after a few large images
    hundreds of MiB that nothing needs. Told what is large, it would hand back what is free at the
    end of a heap from 128 KiB on, and every layer would get its activations as pages to be zeroed
    anew: hence twice the size, as is its own habit. Does nothing where the C library is another.
    """
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 2 * _LARGE_BYTES)
