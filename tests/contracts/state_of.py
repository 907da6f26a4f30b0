"""Everything that an object holds, in Python as in tensors, as one flat table that can be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

# of torch.nn.Module and torch.optim.Optimizer: what torch itself keeps beside parameters, buffers and modules
OF_TORCH = (
    "_forward",
    "_backward",
    "_state_dict",
    "_load_state",
    "_optimizer",
    "_non_persistent",
    "_is_full",
)
PLAIN = (str, bytes, int, float, complex, bool, type(None), torch.dtype, torch.device)


def held(root: Any, name: str, *, saved: set[int]) -> dict[str, Any]:
    """Values by path below `root`. saved: `data_ptr` of tensors that checkpoints hold, which are left out."""
    return dict(_walk(root, name, saved, set()))


def _walk(value: Any, path: str, saved: set[int], seen: set[int]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, PLAIN):
        yield path, value
        return
    if isinstance(value, Tensor):
        if value.data_ptr() not in saved:
            yield path, _digest(value)
        return
    if isinstance(value, (FunctionType, MethodType, ModuleType, type)) or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, torch.Generator):
        yield path, _digest(value.get_state())
        return
    for key, item in _items(value):
        yield from _walk(item, f"{path}.{key}", saved, seen)


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield "#", len(value)
        yield from (
            (key if isinstance(key, PLAIN) else type(key).__name__, item) for key, item in value.items()
        )
    elif isinstance(value, (list, tuple)):
        yield "#", len(value)
        yield from enumerate(value)
    elif isinstance(value, (set, frozenset)):
        yield "#", sorted(map(repr, value))
    else:
        held = getattr(value, "__dict__", {})
        yield from ((key, item) for key, item in held.items() if not _is_of_torch(value, key))


def _is_of_torch(owner: Any, key: str) -> bool:
    return isinstance(owner, (nn.Module, torch.optim.Optimizer)) and key.startswith(OF_TORCH)


def _digest(tensor: Tensor) -> str:
    plain = tensor.detach().cpu().contiguous().reshape(-1)
    content = plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return f"{tensor.dtype} {tuple(tensor.shape)} {hashlib.sha256(content).hexdigest()[:16]}"
