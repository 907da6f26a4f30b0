"""Freed memory is kept, and only when the user did not decide otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COUNT = """
import resource, sys
from genzoo.core.memory import freed_memory_kept
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    import ctypes
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    block = libc.malloc(ctypes.c_size_t(64 << 20))
    ctypes.memset(block, 1, 64 << 20)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
with freed_memory_kept() as kept:
    with freed_memory_kept():
        faults()
    print(kept, faults())
print(faults())
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")


def count_faults(**environment: str) -> tuple[str, int, int]:
    """Whether memory was kept, and the page faults of a block of 64 MB inside and after."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", COUNT], env=env | environment, capture_output=True, text=True, check=True
    )
    kept, inside, after = done.stdout.split()
    return kept, int(inside), int(after)


def test_freed_memory_is_used_again_without_page_faults() -> None:
    kept, inside, after = count_faults()
    assert kept == "True"
    assert inside < 100  # 64 MB are 16,384 pages
    assert after > 10_000 or huge_pages()


def huge_pages() -> bool:
    """Whether the system may map 2 MB at once, which makes faults few whatever the allocator does."""
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return enabled.is_file() and "[always]" in enabled.read_text()


@pytest.mark.parametrize("name", ["GENZOO_KEEP_MEMORY", "MALLOC_TRIM_THRESHOLD_"])
def test_the_user_decides(name: str) -> None:
    kept, _, _ = count_faults(**{name: "0"})
    assert kept == "False"
