"""How this process treats memory that it has freed."""

from __future__ import annotations

import ctypes
import os
from functools import cache

# what a user may have set for the allocator; then it stays as it is
OWN_SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGE = 1 << 30


@cache
def keep_freed_memory() -> bool:
    """Have glibc keep large freed blocks for the next request; True where that is so now.

    By default every tensor above some megabytes goes back to the system when it is freed, and its successor's
    pages are cleared and mapped one by one: 117,000 page faults in a step of a small model, and none with
    this. The process then keeps what it held at its peak. GENZOO_KEEP_MEMORY=0 leaves the allocator alone.
    """
    if os.environ.get("GENZOO_KEEP_MEMORY") == "0" or any(name in os.environ for name in OWN_SETTINGS):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGE)) and bool(mallopt(M_TRIM_THRESHOLD, LARGE))
