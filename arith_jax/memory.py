"""What the C library does with memory that is given back.

A program that JAX compiled for a CPU asks for all its temporary memory at every call.
"""

import ctypes
import sys

# Parameters of `mallopt`, from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Lets this process keep memory that it gives back, for the next time it asks.

    By default glibc returns blocks of more than 32 MiB to the system, which maps them
    anew and clears them page by page: a quarter of a training step of
    `configs/abacus_add.py:cpu`. The price is that the process stays at its largest
    size. For programs, not for modules: it is about the whole process.

    Returns:
        Whether the C library has these parameters; others than glibc have not.

    Source:
        mallopt(3): no block is mapped on its own, and the top of the heap stays.
    """
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    kept = library.mallopt(M_MMAP_MAX, 0), library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    return all(kept)
