"""Whether a model's weights fit into this machine, before any of them is made."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import torch

from genzoo.core.errors import OutOfMemoryError
from genzoo.core.memory import machine_memory
from genzoo.core.registry import MODELS

LARGE, DEEP = 2048, 64  # a number, and a depth, from which on weights are counted first


def require_memory(name: str, arguments: Mapping[str, Any]) -> None:
    """Raise OutOfMemoryError for a model whose weights alone are larger than the machine's memory.

    Layer by layer they would fill it until the system ends some process. Models of ordinary numbers are let
    pass without a look.
    """
    limit = machine_memory()
    if limit is None or not _is_large(arguments):
        return
    needed = 0
    # what else is wrong with the arguments is said when the model is built in earnest
    with contextlib.suppress(Exception), torch.device("meta"):
        needed = sum(tensor.nbytes for tensor in MODELS.get(name)(**arguments).state_dict().values())
    if needed > limit:
        raise OutOfMemoryError(
            f"{name} has weights of {needed / 1e9:,.1f} GB, and this machine has {limit / 1e9:,.1f} GB",
            fix="a smaller model: depth and hidden_size count most",
        )


def _is_large(arguments: Mapping[str, Any]) -> bool:
    lists = [value if isinstance(value, (list, tuple)) else [value] for value in arguments.values()]
    numbers = [one for values in lists for one in values if isinstance(one, int)]
    depth = arguments.get("depth")
    return max(numbers, default=0) >= LARGE or (isinstance(depth, int) and depth >= DEEP)
