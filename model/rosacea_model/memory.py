"""Lets the C library keep freed memory for the next image instead of returning it to the system."""

from __future__ import annotations

import ctypes
import platform

# Names and numbers of glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
NEVER_TRIM = 2**31 - 1
LARGEST_KEPT = 2**30  # bytes; larger blocks are rare, and go back to the system when they are freed


def keep_freed_memory() -> bool:
    """Have glibc reuse freed blocks of up to 1 GiB for the life of the process; False where the C library is another.

    By default glibc maps every tensor above 32 MiB anew and unmaps it when it is freed, so that most of the time of a
    large image goes into page faults. Kept memory stays resident: about the peak of drawing one image.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(M_TRIM_THRESHOLD, NEVER_TRIM))
