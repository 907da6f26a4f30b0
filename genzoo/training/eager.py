"""torch's optimizers without torch's compiler.

Their methods are marked as not to be compiled, and the mark loads the compiler at the first call: more than a
second of processor time in each process, for nothing, since what is compiled here is blocks of models.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer


class Eager(Optimizer):
    """What every optimizer does with its groups and its state, without the mark."""

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)


def _step_of(kind: type[Optimizer]) -> Callable[..., Any]:
    """The arithmetic of a step alone; hooks and the profiler's name are put around it when one is built."""
    plain: Callable[..., Any] = torch.no_grad()(inspect.unwrap(kind.step))
    return plain


class AdamW(Eager, torch.optim.AdamW):
    """torch.optim.AdamW."""

    step = _step_of(torch.optim.AdamW)


class Adam(Eager, torch.optim.Adam):
    """torch.optim.Adam."""

    step = _step_of(torch.optim.Adam)


class SGD(Eager, torch.optim.SGD):
    """torch.optim.SGD."""

    step = _step_of(torch.optim.SGD)


class Muon(Eager, torch.optim.Muon):
    """torch.optim.Muon."""

    step = _step_of(torch.optim.Muon)
