"""One mark for torch.compile, set without loading it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])


def constant_when_traced(function: F) -> F:
    """Call the function once while tracing and keep its result: importing or compiling C is nothing to trace.

    What torch.compiler.assume_constant_result does, which loads the whole compiler first: 1.3 s of start-up
    for a mark that most processes never read.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
