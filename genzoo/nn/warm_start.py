"""Begin a model with another model's weights: an image model's blocks in a model of clips, and the like.

Blocks are paired by kind, attention with attention and Mamba with Mamba, in order. A source as deep as the
target has spatial blocks of that kind fills those, and the blocks that cross frames start closed: at first
the model of clips treats each frame like the image model. Otherwise the n-th block fills the n-th, and of a
deeper source blocks at even distances are taken. What lies outside the blocks, and all of a model without
blocks, is copied where name and shape agree; what a model can refit, such as positions of maps of another
shape, it refits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genzoo.core.contracts import able
from genzoo.core.contracts.models import NamesResidual, OrdersBlocks, RefitsTensors, fixed_tables
from genzoo.core.errors import WeightsError

KINDS = {"attention": "attn.", "mamba": "mixer."}
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Fate:
    """What became of a tensor. source: its name there, None if fresh.   target: here, None if unused."""

    source: str | None
    target: str | None
    why: str


@torch.no_grad()
def warm_start(model: nn.Module, weights: Mapping[str, Tensor]) -> list[Fate]:
    """Copy into `model` what fits of the weights of another; the fate of every tensor of both, in order.

    Raises WeightsError, with the model as it was, when not one tensor of a block fits.
    """
    pairs = _pair_blocks(model, weights)
    fixed = set(fixed_tables(model))
    copies: dict[str, Tensor] = {}
    fates, used = [], set()
    for name, parameter in model.state_dict().items():
        if name in fixed:
            fates.append(Fate(None, name, "fixed table, built anew"))
            continue
        source = _source_name(name, pairs)
        found = None if source is None else weights.get(source)
        taken = None if found is None else _fit(model, name, parameter, weights, source or name)
        if taken is None:
            fates.append(Fate(None, name, _why_fresh(source, parameter, found)))
            continue
        assert source is not None
        assert found is not None
        copies[name] = taken
        used.add(source)
        fates.append(Fate(source, name, f"copied, {_how(taken, found)}{tuple(taken.shape)}"))
    _refuse_unlike(model, weights, copies)
    model.load_state_dict(copies, strict=False)
    return fates + [Fate(name, None, _why_unused(name, fixed)) for name in weights if name not in used]


def kinds_of_blocks(names: Sequence[str]) -> dict[int, str]:
    """Block number to kind, of state-dict names, in order."""
    found: dict[int, str] = {}
    for name in names:
        match = _BLOCK.match(name)
        kinds = [kind for kind, prefix in KINDS.items() if match and match[2].startswith(prefix)]
        if match and kinds:
            found[int(match[1])] = kinds[0]
    return dict(sorted(found.items()))


def _pair_blocks(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[int, int]:
    """Number of a block of the model to that of its source."""
    ours, theirs = kinds_of_blocks(list(model.state_dict())), kinds_of_blocks(list(weights))
    ordered = able(model, OrdersBlocks)
    pairs: dict[int, int] = {}
    for kind in KINDS:
        targets = [number for number, found in ours.items() if found == kind]
        sources = [number for number, found in theirs.items() if found == kind]
        orders = {} if ordered is None else dict(enumerate(ordered.orders))
        spatial = [number for number in targets if orders.get(number) == "spatial"]
        if len(spatial) == len(sources) < len(targets):
            targets = spatial
        step = max(1.0, len(sources) / max(1, len(targets)))
        chosen = [sources[int(index * step)] for index in range(min(len(sources), len(targets)))]
        pairs |= dict(zip(targets, chosen, strict=False))
    return pairs


def _source_name(name: str, pairs: Mapping[int, int]) -> str | None:
    match = _BLOCK.match(name)
    if not match:
        return name
    return f"blocks.{pairs[int(match[1])]}.{match[2]}" if int(match[1]) in pairs else None


def _fit(
    model: nn.Module, name: str, parameter: Tensor, weights: Mapping[str, Tensor], source: str
) -> Tensor | None:
    """The source as it goes into the parameter, or None."""
    found = weights[source]
    if found.shape == parameter.shape:
        return None if _is_other_modulation(model, name) else found
    rows, width = len(parameter), parameter.shape[1:]
    halved = "adaLN_modulation" in name and len(found) == 2 * rows and found.shape[1:] == width
    # six modulations begin with the three of the mixer, which are all that a block without perceptron has
    if halved:
        return None if _is_other_modulation(model, name) else found[:rows]
    refits = able(model, RefitsTensors)
    return None if refits is None else refits.refitted(source, weights)


def _how(taken: Tensor, found: Tensor) -> str:
    if taken.shape == found.shape:
        return ""
    if taken.shape[1:] == found.shape[1:]:
        return f"the first {len(taken)} of {len(found)} rows, "
    return f"resized from {tuple(found.shape)}, "


def _is_other_modulation(model: nn.Module, name: str) -> bool:
    """True for modulations that start at one where the source's start at zero."""
    match = _BLOCK.match(name)
    if not match or "adaLN_modulation" not in name:
        return False
    block = model.get_submodule(f"blocks.{match[1]}")
    named = able(block, NamesResidual)
    return named is not None and named.residual != "dit"


def _refuse_unlike(model: nn.Module, weights: Mapping[str, Tensor], copies: Mapping[str, Tensor]) -> None:
    ours, theirs = kinds_of_blocks(list(model.state_dict())), kinds_of_blocks(list(weights))
    if any(_BLOCK.match(name) for name in copies) or (copies and not ours):
        return
    seen = ", ".join(sorted(set(theirs.values()))) or f"names such as {', '.join(list(weights)[:3])}"
    if not ours:
        raise WeightsError(
            f"nothing of the {type(model).__name__} can start from these weights",
            why=f"its names are such as {', '.join(list(model.state_dict())[:3])}; the source has {seen}",
            fix="start from a model of the same kind and sizes",
        )
    raise WeightsError(
        f"no block of the {type(model).__name__} can start from these weights",
        why=f"it has {', '.join(sorted(set(ours.values())))} blocks; the source has {seen}, or another width",
        fix="start from a model of the same hidden_size with attention or Mamba blocks",
    )


def _why_fresh(source: str | None, parameter: Tensor, found: Tensor | None) -> str:
    if source is None:
        return "fresh: no block of the source is left for this one"
    if found is None:
        return "fresh: the source has no such tensor"
    if found.shape == parameter.shape:
        return "fresh: the source's modulation has another meaning"
    return f"fresh: {tuple(found.shape)} there, {tuple(parameter.shape)} here"


def _why_unused(name: str, fixed: set[str]) -> str:
    return "fixed table, not needed" if name in fixed else "not used"
