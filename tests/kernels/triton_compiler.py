"""Compiles Triton kernels for real GPUs without one, and reads what became of them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genzoo.kernels.triton_host import kernel

CAPABILITIES = [80, 90, 100]
TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}


class Compiler:
    """Stands in for a kernel: `kernel[grid](...)` compiles for one architecture and keeps the result."""

    def __init__(self, capability: int) -> None:
        self.capability = capability
        self.compiled: list[Any] = []

    def __call__(self, module: str, name: str) -> Compiler:
        self.kernel = kernel(module, name)
        return self

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        assert all(extent > 0 for extent in grid)
        return self.compile

    def compile(
        self,
        *arguments: Any,
        num_warps: int,
        enable_fp_fusion: bool,
        maxnreg: int | None = None,
        **constants: Any,
    ) -> None:
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        names = self.kernel.arg_names
        values = dict(zip(names, arguments, strict=False)) | constants
        assert list(values) == names
        fixed: dict[tuple[int, ...], Any] = {}
        aligned: dict[tuple[int, ...], list[list[object]]] = {}
        signature = {
            name: "constexpr" if name in constants else describe(value, (i,), fixed, aligned)
            for i, (name, value) in enumerate(values.items())
        }
        fixed |= {(names.index(name),): value for name, value in constants.items()}
        source = ASTSource(self.kernel, signature, fixed, aligned)
        options = {"num_warps": num_warps, "enable_fp_fusion": enable_fp_fusion, "maxnreg": maxnreg}
        self.compiled.append(triton.compile(source, GPUTarget("cuda", self.capability, 32), options))


def describe(value: Any, path: tuple[int, ...], fixed: dict[Any, Any], aligned: dict[Any, Any]) -> Any:
    """Triton's type of an argument; collects what its launcher makes a constant or knows to be aligned."""
    if isinstance(value, tuple):
        return tuple(describe(item, (*path, i), fixed, aligned) for i, item in enumerate(value))
    if isinstance(value, Tensor):
        address, kind = value.data_ptr(), TYPES[value.dtype]
    elif value is None or value == 1:
        fixed[path] = value
        return "constexpr"
    elif isinstance(value, float):
        return "fp32"
    else:
        address, kind = value, "i32"
    if address % 16 == 0:
        aligned[path] = [["tt.divisibility", 16]]
    return kind


def resources(compiled: Any, folder: Path) -> dict[str, int]:
    """REG, STACK and SHARED of the machine code, by the assembler's own tool; a spill needs STACK."""
    from triton.backends import nvidia

    tool, cubin = Path(nvidia.__file__).parent / "bin" / "cuobjdump", folder / "kernel.cubin"
    cubin.write_bytes(compiled.asm["cubin"])
    told = subprocess.run([tool, "-res-usage", cubin], capture_output=True, text=True, check=True)
    found = re.findall(r"(REG|STACK|SHARED):(\d+)", told.stdout + told.stderr)
    assert found, told.stdout + told.stderr
    return {name: int(number) for name, number in found}
