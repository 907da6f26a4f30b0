"""What a pickle gave, as plain containers and tensors, within bounds."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genzoo.core.errors import CheckpointError

Tree = dict[str, Any]
MAX_NODES = 1_000_000
MAX_DEPTH = 50


class Budget:
    """Bounds on what a pickle may expand to: references and strides can repeat a few bytes endlessly."""

    def __init__(self, num_bytes: int) -> None:
        self.nodes, self.bytes = MAX_NODES, num_bytes
        self.storages: set[int] = set()

    def spend(self, value: Any, depth: int) -> None:
        self.nodes -= 1
        if self.nodes < 0 or depth > MAX_DEPTH:
            raise CheckpointError(
                f"the file nests deeper than {MAX_DEPTH} or holds more than {MAX_NODES} values"
            )
        if isinstance(value, Tensor):
            self._spend_tensor(value)

    def _spend_tensor(self, value: Tensor) -> None:
        if value.layout != torch.strided or value.device.type != "cpu":
            raise CheckpointError(
                f"the file holds a {value.layout} tensor on {value.device}; dense ones are expected"
            )
        storage = value.untyped_storage()
        if value.numel() * value.element_size() > storage.nbytes():
            raise CheckpointError(
                f"a tensor of shape {tuple(value.shape)} repeats only {storage.nbytes()} bytes"
            )
        if storage.data_ptr() not in self.storages:
            self.storages.add(storage.data_ptr())
            self.bytes -= storage.nbytes()
        if self.bytes < 0:
            raise CheckpointError("the tensors need more memory than the file has bytes")


def plain_tree(value: Any, budget: Budget, depth: int) -> Any:
    """Dicts with string keys, lists, tensors, numbers, strings and None; anything else is an error."""
    budget.spend(value, depth)
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(key): plain_tree(item, budget, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, torch.Size)):
        return [plain_tree(item, budget, depth + 1) for item in value]
    if isinstance(value, Tensor):
        return value.detach()
    if value is None or isinstance(value, (bool, int, float, str, bytes, torch.dtype)):
        return value
    raise CheckpointError(f"the file holds a {type(value).__name__}, which is no part of weights")
