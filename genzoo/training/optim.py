"""Optimizers, and the learning rate as a pure function of the optimizer step.

The rate is never stepped, saved or prepared: whatever the number of processes, accumulation or restarts, step
s runs at `learning_rate(s)`. The curves are those of `diffusers.optimization`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from genzoo.core.contracts import able
from genzoo.core.contracts.execution import ShapesSlots
from genzoo.core.errors import RecipeError, UsageError
from genzoo.core.model_state import assign, require_same, undecayed_of
from genzoo.core.registry import OPTIMIZERS
from genzoo.core.sharded import own_part
from genzoo.core.stored_tensors import shapes_of
from genzoo.training import eager
from genzoo.training.rates import Curve, decay_at, rate_curve

CURVE = tuple(field.name for field in fields(Curve))
DECAYS = "decays"  # of a parameter group: whether its weight decay is the recipe's
SHARE = "share"  # of a parameter group, where it has one: its rate over the recipe's
NamedParameters = Mapping[str, nn.Parameter]


class Built(NamedTuple):
    """What a factory of OPTIMIZERS makes. slots: tensors kept for each parameter, on average."""

    optimizer: Optimizer
    slots: float


@dataclass(frozen=True)
class Optimization:
    """An optimizer, its peak rate and how that changes, its weight decay at the first and the last step."""

    optimizer: Optimizer
    lr: float
    curve: Curve
    decay: tuple[float, float]
    slots: float


def adamw(
    parameters: NamedParameters,
    *,
    lr: float = 1e-4,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> Built:
    """AdamW, fused. Parameters that a module names as `undecayed` do not decay."""
    groups, fused = decay_groups(parameters, weight_decay), fusable(parameters)
    settings: dict[str, Any] = {"lr": lr, "betas": (betas[0], betas[1]), "eps": eps, "fused": fused}
    return Built(eager.AdamW(groups, weight_decay=weight_decay, **settings), slots=2)


def adam(
    parameters: NamedParameters,
    *,
    lr: float = 1e-4,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> Built:
    """Adam, fused; its weight decay is an L2 penalty."""
    groups, fused = decay_groups(parameters, weight_decay), fusable(parameters)
    settings: dict[str, Any] = {"lr": lr, "betas": (betas[0], betas[1]), "eps": eps, "fused": fused}
    return Built(eager.Adam(groups, weight_decay=weight_decay, **settings), slots=2)


def sgd(
    parameters: NamedParameters,
    *,
    lr: float = 1e-2,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> Built:
    """Gradient descent with momentum, fused but for shards, for which torch has no fused kernel."""
    plain = all(own_part(p) is p for p in parameters.values())
    groups, fused = decay_groups(parameters, weight_decay), plain and fusable(parameters)
    settings: dict[str, Any] = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "fused": fused}
    return Built(eager.SGD(groups, weight_decay=weight_decay, **settings), slots=int(momentum != 0))


def build_optimizer(parameters: NamedParameters, options: Mapping[str, Any]) -> Optimization:
    """The optimizer of a recipe's `optim:` section, {"name": ..., "lr": ..., ...}.

    What a `Curve` takes is the same for every optimizer; the rest goes to the factory of that name.
    """
    if not parameters:
        raise UsageError("there is nothing to train: every parameter of the model is frozen")
    settings = dict(options)
    factory = OPTIMIZERS.get(str(settings.pop("name", "adamw")))
    curve = Curve(**{name: settings.pop(name) for name in CURVE if name in settings})
    try:
        optimizer, slots = factory(parameters, **settings)
    except RecipeError:
        raise
    except (TypeError, ValueError) as error:
        raise RecipeError(f"optim: {error}") from error
    peak, decay = optimizer.defaults["lr"], optimizer.defaults["weight_decay"]
    end = decay if curve.final_weight_decay is None else curve.final_weight_decay
    return Optimization(optimizer, peak, curve, (decay, end), slots)


def decay_groups(parameters: NamedParameters, weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups, those that decay and those that are `undecayed`; empty ones are left out."""
    never = undecayed_of(parameters)
    exempt = [p for name, p in parameters.items() if name in never]
    decayed = [p for name, p in parameters.items() if name not in never]
    groups = [
        {"params": decayed, "weight_decay": weight_decay, DECAYS: True},
        {"params": exempt, "weight_decay": 0.0, DECAYS: False},
    ]
    return [group for group in groups if group["params"]]


def learning_rate(optimization: Optimization, total_steps: int) -> Callable[[int], float]:
    """The rate of optimizer step 0, 1, ..."""
    share = rate_curve(optimization.curve, total_steps, peak=optimization.lr)
    return lambda step: optimization.lr * share(step)


def set_step(optimization: Optimization, step: int, total_steps: int, rate: float) -> None:
    """Put the rate and the weight decay of a step into the optimizer; what never decays stays so."""
    start, end = optimization.decay
    decay = decay_at(step, total_steps, start=start, end=end)
    for group in optimization.optimizer.param_groups:
        group["lr"] = rate * group[SHARE] if SHARE in group else rate
        if start != end and group[DECAYS]:
            group["weight_decay"] = decay


def optimizer_tensors(optimizer: Optimizer, parameters: NamedParameters) -> dict[str, Tensor]:
    """The optimizer's state as "parameter/slot" tensors; sharded ones stay sharded."""
    return {
        f"{name}/{slot}": value if isinstance(value, Tensor) else torch.tensor(value)
        for name, parameter in parameters.items()
        for slot, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }


def load_optimizer_tensors(
    optimizer: Optimizer, parameters: NamedParameters, tensors: Mapping[str, Tensor], *, where: str
) -> None:
    """Put saved state back, by parameter name; hyperparameters stay those of the recipe."""
    saved: dict[str, dict[str, Tensor]] = {}
    for key, about in shapes_of(tensors).items():
        name, _, slot = key.rpartition("/")
        saved.setdefault(name, {})[slot] = about
    if saved:
        require_same(_expected(optimizer, parameters, saved), tensors, where=where, what="the optimizer")
    state = optimizer.state_dict()
    order = [p for group in optimizer.param_groups for p in group["params"]]
    names = {id(parameter): name for name, parameter in parameters.items()}
    state["state"] = {
        index: {slot: _room(about, parameter) for slot, about in saved[names[id(parameter)]].items()}
        for index, parameter in enumerate(order)
        if names[id(parameter)] in saved
    }
    # all room before the first value: between values that pass by, it would hold their memory in pieces
    for index, slots in state["state"].items():
        name = names[id(order[index])]
        assign(slots, {slot: tensors[f"{name}/{slot}"] for slot in slots})
    optimizer.load_state_dict(state)


def _expected(
    optimizer: Optimizer, parameters: NamedParameters, saved: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """What a saved state must hold: in each group the slots that one saved parameter of it has.

    A parameter with axes tells a count from a slot of its own shape, which one without axes cannot.
    """
    names = {id(parameter): name for name, parameter in parameters.items()}
    usual = next(iter(saved.values()))
    expected: dict[str, Tensor] = {}
    for group in optimizer.param_groups:
        members = [names[id(parameter)] for parameter in group["params"]]
        kept = sorted((n for n in members if n in saved), key=lambda n: -parameters[n].ndim)
        slots = saved[kept[0]] if kept else usual
        expected |= {
            f"{n}/{s}": _slot_like(parameters[n], slots[s], _own_shape(optimizer, s, parameters[n]))
            for n in members
            for s in slots
        }
    return expected


def _own_shape(optimizer: Optimizer, slot: str, parameter: nn.Parameter) -> tuple[int, ...] | None:
    shaped = able(optimizer, ShapesSlots)
    return None if shaped is None else shaped.slot_shape(slot, parameter)


def _slot_like(parameter: nn.Parameter, slot: Tensor, own: tuple[int, ...] | None) -> Tensor:
    # a slot is a scalar count, or has the shape of its parameter, or one that its optimizer tells
    usual = () if slot.ndim == 0 and parameter.ndim else tuple(parameter.shape)
    shape = usual if own is None else own
    return torch.empty(shape, dtype=slot.dtype, device="meta")


def _room(about: Tensor, parameter: nn.Parameter) -> Tensor:
    """Where a slot goes: with its parameter, shared out alike, or a count of its own."""
    if about.shape != parameter.shape:
        return torch.empty(about.shape, dtype=about.dtype)
    return torch.empty_like(parameter.data, dtype=about.dtype, memory_format=torch.contiguous_format)


def fusable(parameters: NamedParameters) -> bool:
    """Whether the fused kernels take these parameters."""
    return all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters.values())
