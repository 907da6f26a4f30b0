"""Freed memory is kept, and only when the user did not decide otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

COUNT = """
import resource, sys
from genzoo.core.memory import keep_freed_memory
print(keep_freed_memory())
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    import ctypes
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    block = libc.malloc(ctypes.c_size_t(64 << 20))
    ctypes.memset(block, 1, 64 << 20)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")


def count_faults(**environment: str) -> tuple[str, int]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", COUNT], env=env | environment, capture_output=True, text=True, check=True
    )
    kept, faults = done.stdout.split()
    return kept, int(faults)


def test_freed_memory_is_used_again_without_page_faults() -> None:
    kept, faults = count_faults()
    assert kept == "True"
    assert faults < 100  # 64 MB are 16,384 pages


@pytest.mark.parametrize("name", ["GENZOO_KEEP_MEMORY", "MALLOC_TRIM_THRESHOLD_"])
def test_the_user_decides(name: str) -> None:
    kept, _ = count_faults(**{name: "0"})
    assert kept == "False"
