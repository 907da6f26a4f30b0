"""A model compiled block by block with torch.compile, in place: names of modules and weights stay plain.

One graph serves all blocks of a kind, so that compiling takes as long as for one. Each block has to be one
graph; what cannot be traced is an error, and never runs uncompiled in silence.
"""

from __future__ import annotations

import contextlib
import inspect
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from genzoo.core.contracts import able
from genzoo.core.contracts.execution import CompilesBlocks
from genzoo.core.errors import MissingDependencyError, UsageError

BACKEND = "inductor"
RECOMPILE_LIMIT = 64  # of all blocks in the process together: precision, mode, gradients and shapes are cases
_backends: weakref.WeakKeyDictionary[nn.Module, str | Callable[..., Any]] = weakref.WeakKeyDictionary()
"""By what a model is compiled."""


def compile_blocks(model: nn.Module, *, backend: str | Callable[..., Any] = BACKEND) -> None:
    """Compile every block, in place, at its first call.

    Raises UsageError for a model that names no blocks, MissingDependencyError where inductor has no compiler.
    """
    blocks = blocks_to_compile(model)
    if backend == BACKEND:
        require_compiler(next(model.parameters()).device)
    for block in blocks:
        block.compile(fullgraph=True, backend=backend, **_limit())
    _backends[model] = backend


def blocks_to_compile(model: nn.Module) -> Sequence[nn.Module]:
    """The parts that are compiled one by one. Raises UsageError for a model that names none."""
    naming = able(model, CompilesBlocks)
    if naming is None:
        raise UsageError(
            f"compile: {type(model).__name__} names no blocks to compile", fix="leave compile out"
        )
    return naming.compiled_blocks()


def is_compiled(model: nn.Module) -> bool:
    """Whether `compile_blocks` was called for the model, and not taken back."""
    return model in _backends


def compile_like(copied: nn.Module, model: nn.Module) -> None:
    """Compile a copy as its original is: copying leaves compiled code behind."""
    if is_compiled(model):
        compile_blocks(copied, backend=_backends[model])


@contextlib.contextmanager
def compiled(model: nn.Module, *, backend: str | Callable[..., Any] = BACKEND) -> Iterator[None]:
    """Within the block the model is compiled; one that is already stays as it is."""
    if is_compiled(model):
        yield
        return
    compile_blocks(model, backend=backend)
    try:
        yield
    finally:
        for block in blocks_to_compile(model):
            block._compiled_call_impl = None
        del _backends[model]


@contextlib.contextmanager
def eagerly(model: nn.Module) -> Iterator[None]:
    """Within the block a compiled model runs uncompiled, so that every module can be watched."""
    with torch.compiler.set_stance("force_eager") if is_compiled(model) else contextlib.nullcontext():
        yield


def require_compiler(device: torch.device) -> None:
    """Raise MissingDependencyError when torch's inductor can compile nothing for the device."""
    reason = _no_triton() if device.type == "cuda" else _no_cxx()
    if reason is not None:
        raise MissingDependencyError(
            f"compile: nothing can be compiled for {device.type}", why=reason, fix=_FIX
        )


_FIX = "install g++, or name a C++ compiler in CXX; or leave compile out"


def _no_cxx() -> str | None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        return str(error).partition("\n")[0]
    return None


def _no_triton() -> str | None:
    from torch.utils._triton import has_triton

    return None if has_triton() else "Triton is not installed, or does not know this GPU"


def _limit() -> dict[str, int]:
    """How often code may be compiled anew: an argument of torch.compile, before torch 2.14 a setting."""
    if "recompile_limit" in inspect.signature(torch.compile).parameters:
        return {"recompile_limit": RECOMPILE_LIMIT}
    import torch._dynamo.config as config

    config.recompile_limit = max(config.recompile_limit, RECOMPILE_LIMIT)
    return {}
