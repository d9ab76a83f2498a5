"""How the C library's allocator treats the memory of large images."""

import ctypes
from contextlib import suppress

_M_MMAP_THRESHOLD = -3  # of mallopt(3)
# Below the blocks of 16 MiB in which Pillow takes the memory of an image.
_LARGE_BYTES = 15_000_000


def return_large_blocks() -> None:
    """Let glibc give freed blocks of that size back to the system at once.

    By itself it comes to keep blocks of up to 32 MiB, for each thread: after a few large images
    hundreds of MiB that nothing needs. Does nothing where the C library is another.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
