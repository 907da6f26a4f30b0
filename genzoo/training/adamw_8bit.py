"""AdamW whose two moments are stored in 8 bits each, in blocks with a scale of their own (Dettmers et al.,
*8-bit Optimizers via Block-wise Quantization*, 2022): 2.03 bytes for each parameter in place of 8.

Codes are places in the paper's dynamic map, whose steps are fine near zero; arithmetic is AdamW's in float32,
one parameter at a time. Small parameters keep float32 moments, as in the published code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from genzoo.core.errors import UsageError
from genzoo.core.sharded import own_part
from genzoo.training.eager import Eager
from genzoo.training.optim import Built, NamedParameters, decay_groups

BLOCK = 256  # numbers that share a scale
SMALL = 4096  # parameters of fewer numbers keep float32 moments
CODES = ("exp_avg_code", "exp_avg_sq_code")
SCALES = ("exp_avg_scale", "exp_avg_sq_scale")


def dynamic_map(*, signed: bool, bits: int = 8) -> Tensor:
    """(2^bits,) float32, ascending: fractions of 10^0, 10^-1, .. 10^-6 with fewer bits the smaller they are;
    0 and 1 are among them.
    """
    exponents = bits - 1
    values = [0.0, 1.0]
    for power in range(exponents):
        count = 2**power if signed else 2 ** (power + 1)
        edges = np.linspace(0.1, 1, count + 1)
        means = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (power - exponents + 1)
        values += [*means, *(-means if signed else ())]
    return torch.tensor(sorted(values), dtype=torch.float32)


def _tables(like: Tensor) -> tuple[Tensor, Tensor]:
    """The maps of the first and the second moment, sent to a device once and not at every step."""
    # a step that is counted on fake tensors must leave no fake table behind
    return _sent.__wrapped__(like.device) if isinstance(like, FakeTensor) else _sent(like.device)


@cache
def _sent(device: torch.device) -> tuple[Tensor, Tensor]:
    return dynamic_map(signed=True).to(device), dynamic_map(signed=False).to(device)


def quantise(x: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (uint8) of x's shape, and the largest magnitude of each block of 256, in order of memory."""
    flat = x.reshape(-1)
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scale = blocks.abs().amax(1)
    share = blocks / scale.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    middles = (table[:-1] + table[1:]) / 2
    codes = torch.searchsorted(middles, share.view(-1)[: len(flat)]).to(torch.uint8)
    return codes.view(x.shape), scale


def restore(codes: Tensor, scale: Tensor, table: Tensor) -> Tensor:
    """The numbers that codes stand for, float32."""
    flat = table[codes.reshape(-1).long()]
    spread = scale.repeat_interleave(BLOCK)[: len(flat)]
    return (flat * spread).view(codes.shape)


class AdamW8bit(Eager):
    """One step of AdamW on restored moments, stored again as codes."""

    def __init__(self, groups: list[dict[str, Any]], **defaults: Any) -> None:
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move all parameters. closure: evaluated once, before."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad.float(), group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As every optimizer's; codes, which torch would turn into the parameters' type, stay codes."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            state.update({slot: state[slot].to(torch.uint8) for slot in CODES if slot in state})
            state.update({slot: state[slot].float() for slot in SCALES if slot in state})

    def slot_shape(self, slot: str, parameter: Tensor) -> tuple[int, ...] | None:
        """Of slots that are not shaped as their parameter; None for the others."""
        return (math.ceil(parameter.numel() / BLOCK),) if slot in SCALES else None

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, small = self.state[parameter], parameter.numel() < SMALL
        tables = _tables(gradient)
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            moments = [torch.zeros_like(gradient), torch.zeros_like(gradient)]
        elif small:
            moments = [state["exp_avg"], state["exp_avg_sq"]]
        else:
            moments = [
                restore(state[code], state[scale], table)
                for code, scale, table in zip(CODES, SCALES, tables, strict=True)
            ]
        state["step"] += 1
        first, second = moments
        beta1, beta2 = group["betas"]
        first.lerp_(gradient, 1 - beta1)
        second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        count = state["step"].double()
        root = (second / (1 - beta2**count)).sqrt_().add_(group["eps"])
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(first / root * (group["lr"] / (1 - beta1**count)))
        if small:
            state["exp_avg"], state["exp_avg_sq"] = first, second
            return
        for moment, code, scale, table in zip(moments, CODES, SCALES, tables, strict=True):
            state[code], state[scale] = quantise(moment, table)


def adamw_8bit(
    parameters: NamedParameters,
    *,
    lr: float = 1e-4,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> Built:
    """AdamW with 8-bit moments. Parameters that a module names as `undecayed` do not decay."""
    if any(own_part(parameter) is not parameter for parameter in parameters.values()):
        raise UsageError(
            "adamw_8bit does not know shards of parameters",
            fix="train.sharding=none, or optim.name=adamw, whose moments are then shared out",
        )
    # slots differ between large and small ones, and groups are of one kind
    groups = []
    for large in (True, False):
        chosen = {name: p for name, p in parameters.items() if (p.numel() >= SMALL) is large}
        groups += decay_groups(chosen, weight_decay) if chosen else []
    optimizer = AdamW8bit(groups, lr=lr, betas=(betas[0], betas[1]), eps=eps, weight_decay=weight_decay)
    total = sum(p.numel() for p in parameters.values())
    held = sum(
        p.numel() * (2 + 8 / BLOCK) / 4 if p.numel() >= SMALL else 2 * p.numel() for p in parameters.values()
    )
    return Built(optimizer, slots=held / max(total, 1))
