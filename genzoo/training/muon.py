"""Muon for the hidden matrices and AdamW for all else (Jordan et al. 2024), as one optimizer.

Muon replaces a matrix's momentum by the nearest matrix with singular values near one, so that every direction
learns alike. That means something for a linear map between hidden vectors; `hidden_matrices` is the rule.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from genzoo.core.errors import RecipeError
from genzoo.core.model_state import TrainedParameters, undecayed_of
from genzoo.training import eager
from genzoo.training.optim import DECAYS, SHARE, Built, NamedParameters, decay_groups, fusable

logger = logging.getLogger(__name__)

INSIDE_BLOCKS = re.compile(r"(^|\.)(\w*blocks|layers)\.\d+\.")
NO_MAPS: Mapping[str, str] = {
    r"\.A_(b_)?log$": "decays of single states, not a map",
    r"\.(x|dt)_proj(_b)?\.": "rows are roles: step size, B and C",
    r"embed": "tables are looked up, not multiplied",
    r"\.time_emb_proj\.": "the path of the condition",
}
MODULATION = re.compile(r"\.(adaLN_modulation|ada_lin)\.")  # the path of the condition; zero at first


class MuonAdamW(eager.Eager):
    """Two optimizers that share one state and one list of groups, in which Muon's come first."""

    def __init__(self, muon: torch.optim.Muon, adamw: torch.optim.AdamW) -> None:
        self.parts: tuple[Optimizer, Optimizer] = (muon, adamw)
        shared = {name: muon.defaults[name] for name in ("lr", "weight_decay")}
        super().__init__([*muon.param_groups, *adamw.param_groups], shared)
        self._share()

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move all parameters. closure: evaluated once, before."""
        loss = None if closure is None else closure()
        for part in self.parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As every optimizer's; both parts then hold the new state."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        first, second = self.parts
        count = len(first.param_groups)
        first.param_groups, second.param_groups = self.param_groups[:count], self.param_groups[count:]
        first.state = second.state = self.state


def muon(
    parameters: NamedParameters,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.95,
    nesterov: bool = True,
    ns_steps: int = 5,
    scale: Literal["match_rms_adamw", "original", "spectral_unclamped"] = "match_rms_adamw",
    modulation: Literal["adamw", "muon"] = "adamw",
    adamw_share: float = 1.0,
) -> Built:
    """torch.optim.Muon for matrices inside blocks, fused AdamW for the rest; the split is logged.

    lr, weight_decay: of both, since "match_rms_adamw" gives Muon's steps the size of AdamW's; the other
    scales want rates of their own.   adamw_share: of lr, for AdamW's part.   betas, eps: of AdamW.
    momentum, nesterov, ns_steps: of Muon.   modulation: where the matrices of adaptive norms go. A
    repeat on one machine is exact; the iteration is in bfloat16, whose products differ between processors.
    """
    if not adamw_share > 0:
        raise RecipeError(f"optim.adamw_share: must be positive, not {adamw_share}")
    if modulation not in ("adamw", "muon"):
        raise RecipeError(f'optim.modulation: is "adamw" or "muon", not {modulation!r}')
    matrices = hidden_matrices(parameters, modulation=modulation == "muon")
    never = undecayed_of(parameters)
    others = TrainedParameters({name: p for name, p in parameters.items() if name not in matrices}, never)
    if not matrices:
        raise RecipeError(
            "optim: there is no hidden matrix to orthogonalise",
            why="the model's 2-d parameters are tables, heads and the like, or frozen",
            fix="use adamw",
        )
    log_split(matrices, others)
    first = eager.Muon(
        [{"params": list(matrices.values()), DECAYS: True}],
        lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov, ns_steps=ns_steps,
        adjust_lr_fn=scale,
    )  # fmt: skip
    groups = [{**group, SHARE: adamw_share} for group in decay_groups(others, weight_decay)]
    second = eager.AdamW(
        groups, lr=adamw_share * lr, betas=(betas[0], betas[1]), eps=eps, fused=fusable(others)
    )
    slots = (_size(matrices.values()) + 2 * _size(others.values())) / _size(parameters.values())
    return Built(MuonAdamW(first, second), slots=slots)


def hidden_matrices(parameters: NamedParameters, *, modulation: bool = False) -> dict[str, nn.Parameter]:
    """The 2-d parameters inside blocks that map hidden vectors to hidden vectors.

    modulation: count those of adaptive norms among them.
    """
    never = undecayed_of(parameters)
    return {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.ndim == 2
        and INSIDE_BLOCKS.search(name)
        and name not in never
        and not any(re.search(pattern, name) for pattern in NO_MAPS)
        and (modulation or not MODULATION.search(name))
    }


def log_split(matrices: NamedParameters, others: NamedParameters) -> None:
    """Say how many parameters each optimizer has, and which by name."""
    for optimizer, part in (("Muon", matrices), ("AdamW", others)):
        names = Counter(re.sub(r"\.\d+\.", ".*.", name) for name in part)
        listed = ", ".join(f"{name} x{count}" if count > 1 else name for name, count in names.items())
        logger.info(
            "%s: %s parameters in %d tensors: %s", optimizer, f"{_size(part.values()):,}", len(part), listed
        )


def _size(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
