"""What a task holds beside its model: frozen modules, and what it remembers."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from genzoo.nn.resting import Resting
from genzoo.training.parts import Parts


def frozen_tensors(parts: Parts) -> list[Tensor]:
    """Weights of frozen modules that a task holds beside its model, in objects within objects."""
    own = {id(module) for module in parts.model.modules()}
    modules = [one for one in _reachable(parts.task) if isinstance(one, nn.Module) and id(one) not in own]
    return [tensor for module in modules for tensor in (*module.parameters(False), *module.buffers(False))]


def resting_tensors(parts: Parts) -> list[Tensor]:
    """Weights of the model and of those modules that lie in the host's memory but while they are read."""
    resting = [one for one in _reachable(parts.task) if isinstance(one, Resting)]
    return [tensor for one in resting for tensor in one.tensors()]


def _reachable(start: object) -> list[Any]:
    """An object, and those of this project, modules and dictionaries that it holds, at any depth."""
    seen: dict[int, Any] = {}
    waiting: list[Any] = [start]
    while waiting:
        one = waiting.pop()
        own = one is start or isinstance(one, (nn.Module, dict)) or _is_ours(one)
        if isinstance(one, (list, tuple)):
            waiting += one
        elif own and id(one) not in seen:
            seen[id(one)] = one
            waiting += _content(one).values()
    return list(seen.values())


def _is_ours(one: object) -> bool:
    return type(one).__module__.startswith("genzoo.")


def _is_frozen(one: dict[Any, Any]) -> bool:
    """Whether it is a kind of its own, such as diffusers' configurations, which nothing may change."""
    return type(one) not in (dict, OrderedDict)


def _content(one: Any) -> dict[Any, Any]:
    """What an object or a dictionary holds, to be changed; nothing for objects without attributes."""
    try:
        return one if isinstance(one, dict) and not _is_frozen(one) else vars(one)
    except TypeError:
        return {}


@contextlib.contextmanager
def nothing_kept(task: object) -> Iterator[None]:
    """Afterwards the task remembers nothing that it computed within: those tensors have no values."""
    before = [(content, dict(content)) for content in map(_content, _reachable(task))]
    try:
        yield
    finally:
        for content, kept in before:
            content.clear()
            content.update(kept)
