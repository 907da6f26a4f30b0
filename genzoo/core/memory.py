"""How much memory there is for this process, and how it treats what it has freed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from typing import Any

from genzoo.core.errors import DataError
from genzoo.core.reading import read_bytes

# what a user may have set for the allocator; then it stays as it is
OWN_SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGE = 1 << 30
# glibc starts at 128 KiB and follows the blocks that are freed up to these; what was set cannot be read back
GLIBC_MMAP, GLIBC_TRIM = 32 << 20, 64 << 20
_within = 0  # how many blocks are open; only the main thread samples or trains


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[bool]:
    """Within the block glibc keeps large freed blocks for the next request; True where that is so.

    By default every tensor above some megabytes goes back to the system when it is freed, and its successor's
    pages are cleared and mapped one by one: 117,000 page faults in a step of a small model, and none with
    this. Inside, the process keeps what it held at its peak; afterwards that goes back to the system, and
    large blocks are treated as by default. Blocks within blocks end with the outermost. GENZOO_KEEP_MEMORY=0
    leaves the allocator alone. As `@freed_memory_kept()` it is around every call of a function.
    """
    global _within
    libc = _glibc()
    kept = libc is not None and (_within > 0 or _set(libc, LARGE, LARGE))
    _within += 1
    try:
        yield kept
    finally:
        _within -= 1
        if libc is not None and kept and not _within:
            _set(libc, GLIBC_MMAP, GLIBC_TRIM)
            libc.malloc_trim(ctypes.c_size_t(0))


def free_host_memory() -> int | None:
    """Bytes that this machine has left for its processes; None where the system does not say."""
    try:
        lines = read_bytes("/proc/meminfo").decode().splitlines()
        available = next(line for line in lines if line.startswith("MemAvailable:"))
    except (DataError, StopIteration):
        return None
    return int(available.split()[1]) * 1024


def machine_memory() -> int | None:
    """Bytes that this process may have at all: of the machine, or less where a limit (ulimit -v) says so.

    None where the system does not say.
    """
    found = []
    with contextlib.suppress(AttributeError, ValueError, OSError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    if sys.platform != "win32":
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        found += [] if limit == resource.RLIM_INFINITY else [limit]
    return min(found, default=None)


def _glibc() -> Any:
    """The C library when its allocator may be set, else None."""
    if os.environ.get("GENZOO_KEEP_MEMORY") == "0" or any(name in os.environ for name in OWN_SETTINGS):
        return None
    try:
        libc = ctypes.CDLL(None)
        return libc if libc.mallopt and libc.malloc_trim else None
    except (AttributeError, OSError, TypeError):  # no glibc
        return None


def _set(libc: Any, mmap_threshold: int, trim_threshold: int) -> bool:
    return bool(libc.mallopt(M_MMAP_THRESHOLD, mmap_threshold)) and bool(
        libc.mallopt(M_TRIM_THRESHOLD, trim_threshold)
    )
