"""Whether weights fit a module: keys, shapes, kinds of number and finiteness, all differences at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch

import torch
from torch import Tensor

from genzoo.core.errors import CheckpointError

Spec = Mapping[str, tuple[tuple[int, ...], torch.dtype]]


def spec_of(module: torch.nn.Module) -> Spec:
    """Shape and dtype of everything in a module's state dict: what `check_against` expects."""
    return {name: (tuple(value.shape), value.dtype) for name, value in module.state_dict().items()}


def check_against(
    expected: Spec,
    state: Mapping[str, Tensor],
    *,
    source: str = "the weights",
    ignore: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> dict[str, Tensor]:
    """The weights in the expected dtypes, after comparing keys, shapes, kinds of number, and finiteness.

    ignore: shell patterns of keys the file may have in addition; they are left out.   optional: patterns of
    expected keys it may lack. Nothing else is dropped or filled in: every difference is listed in one
    CheckpointError. Floating types convert into each other, integers and booleans do not.
    """
    problems = _Problems()
    for key in expected.keys() - state.keys():
        if not _matches(key, optional):
            problems.add("missing", key)
    for key in state.keys() - expected.keys():
        if not _matches(key, ignore):
            problems.add("unexpected", key)
    checked = {}
    for key in (key for key in expected if key in state):
        shape, dtype = expected[key]
        _check_tensor(key, state[key], shape, dtype, problems)
        checked[key] = state[key].to(dtype) if state[key].is_floating_point() else state[key]
    problems.raise_for(source)
    return checked


def _check_tensor(
    key: str, value: Tensor, shape: tuple[int, ...], dtype: torch.dtype, problems: _Problems
) -> None:
    if tuple(value.shape) != shape:
        problems.add("of another shape", f"{key} {tuple(value.shape)} instead of {shape}")
    elif value.dtype != dtype and not (value.is_floating_point() and dtype.is_floating_point):
        problems.add("of another type", f"{key} {value.dtype} instead of {dtype}")
    elif value.is_floating_point() and not torch.isfinite(value.float()).all():
        problems.add("not finite", key)


class _Problems:
    """Collects what is wrong, so that one error says it all."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}

    def add(self, kind: str, what: str) -> None:
        self.found.setdefault(kind, []).append(what)

    def raise_for(self, source: str) -> None:
        if not self.found:
            return
        lists = [f"{len(items)} {kind} ({_shorten(sorted(items))})" for kind, items in self.found.items()]
        raise CheckpointError(
            f"{source} do not fit the model",
            why="; ".join(lists),
            fix="build the model with the arguments these weights were trained with, or use other weights",
        )


def _shorten(items: list[str], limit: int = 4) -> str:
    return ", ".join(items[:limit]) + (f", and {len(items) - limit} more" if len(items) > limit else "")


def _matches(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(key, pattern) for pattern in patterns)
