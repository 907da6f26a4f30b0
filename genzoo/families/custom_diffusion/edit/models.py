"""Edits and merges of any model of diffusers whose text has a closed form (`attention_models`), in memory.

A projection with bias gives W c + b. The bias stays: a redirect cancels it, and a concept's own bias counts
in its target, W_n c + b_n - b. With `with_bias` it moves too: the same algebra on [W, b] and rows [c, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.errors import ShapeError, UsageError, WeightsError
from genzoo.families.custom_diffusion.edit.attention_models import (
    WITHOUT_LORA,
    Rows,
    Text,
    stacked,
    text_rows,
)
from genzoo.families.custom_diffusion.edit.solve import edit_weights
from genzoo.families.custom_diffusion.edit.verbs import RULES
from genzoo.families.custom_diffusion.merge.low_rank import exact_factors

State = dict[str, Tensor]
Values = Callable[[str, Tensor, Tensor | None], Tensor]


def edit_model(
    model: nn.Module,
    sources: Sequence[Text],
    targets: Sequence[Text],
    keep: Sequence[Text],
    *,
    verb: str = "redirect",
    strength: float = 1.0,
    rows: slice | Sequence[int] = slice(None),
    with_bias: bool = False,
    target: str = "keys_values",
    **options: Any,
) -> State:
    """New weights (and biases) by their names in the model, float64; the model itself is not changed.

    sources, targets: one text each, of which `rows` stand for each other.   keep: whose rows all stay.
    options: weights, keep_weights, lamb and form of `solve.edit_weights`. Raises UsageError naming the reason
    where a model's text has no closed form.
    """
    if verb not in RULES:
        raise UsageError(f"verb={verb!r} is not known", fix=f"one of {', '.join(RULES)}")
    if len(sources) != len(targets) or not sources:
        raise ShapeError(
            f"{len(sources)} sources and {len(targets)} targets", fix="one target for each source"
        )
    c, g = (_chosen(model, texts, rows, target) for texts in (sources, targets))
    kept = stacked([text_rows(model, text, target=target) for text in keep])
    state = model.state_dict()
    found: State = {}
    for name, C in c.items():
        T = RULES[verb](C, g[name], strength)
        W_0, bias = _affine(state, name)
        found |= _solved(name, W_0, bias, C, T @ W_0.T, kept[name], with_bias, T, options)
    return found


def merge_models(
    model: nn.Module,
    concepts: Sequence[tuple[Mapping[str, Tensor], Sequence[Text]]],
    keep: Sequence[Text],
    *,
    rows: slice | Sequence[int] = slice(None),
    **options: Any,
) -> State:
    """Merge concepts in closed form: each is its trained projections by name, and the texts that call it.

    The base's biases stay. options: as for `solve.edit_weights`; form "constraint" meets all values exactly.
    """
    pieces = [_chosen(model, texts, rows, "keys_values") for _, texts in concepts]
    kept = stacked([text_rows(model, text) for text in keep])
    state, found = model.state_dict(), {}
    for name in pieces[0]:
        W_0, bias = _affine(state, name)
        values = []
        for (taught, _), own in zip(concepts, pieces, strict=True):
            if f"{name}.weight" not in taught:
                raise WeightsError(
                    f"the concept has no {name}.weight", fix="train keys and values of the text"
                )
            value = own[name] @ taught[f"{name}.weight"].double().T
            if bias is not None and f"{name}.bias" in taught:
                value = value + taught[f"{name}.bias"].double() - bias
            values.append(value)
        C = torch.cat([own[name] for own in pieces])
        (W,) = edit_weights([W_0], C, [torch.cat(values)], kept[name], **options)
        found[f"{name}.weight"] = W
    return found


def _solved(
    name: str,
    W_0: Tensor,
    bias: Tensor | None,
    C: Tensor,
    V: Tensor,
    kept: Tensor,
    with_bias: bool,
    T: Tensor,
    options: Mapping[str, Any],
) -> State:
    if bias is None or not with_bias:
        (W,) = edit_weights([W_0], C, [V], kept, **options)
        return {f"{name}.weight": W}
    whole = torch.cat([W_0, bias[:, None]], 1)
    (W,) = edit_weights([whole], _with_one(C), [_with_one(T) @ whole.T], _with_one(kept), **options)
    return {f"{name}.weight": W[:, :-1], f"{name}.bias": W[:, -1]}


def _chosen(model: nn.Module, texts: Sequence[Text], rows: slice | Sequence[int], target: str) -> Rows:
    every = [text_rows(model, text, target=target) for text in texts]
    picked = rows if isinstance(rows, slice) else list(rows)
    return stacked([{name: one[picked].double() for name, one in found.items()} for found in every])


def _affine(state: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor | None]:
    bias = state.get(f"{name}.bias")
    return state[f"{name}.weight"].double(), None if bias is None else bias.double()


def _with_one(rows: Tensor) -> Tensor:
    return torch.cat([rows.double(), rows.new_ones(len(rows), 1).double()], 1)


def lora_tensors(model: nn.Module, state: Mapping[str, Tensor], *, prefix: str = "transformer") -> State:
    """New weights as a LoRA in diffusers' names, for `pipeline.load_lora_weights`.

    Raises UsageError for models whose pipelines cannot load one, and for changed biases.
    """
    kind = type(model).__name__
    if kind in WITHOUT_LORA:
        raise UsageError(
            f"the pipeline of {kind} in diffusers cannot load a LoRA",
            fix="load the weights themselves: model.load_state_dict(state, strict=False), or a PEFT folder",
        )
    biases = [name for name in state if name.endswith(".bias")]
    if biases:
        raise UsageError(f"LoRA has no place for {biases[0]}", fix="edit without with_bias")
    before = model.state_dict()
    found: State = {}
    for name, weight in state.items():
        up, down = exact_factors(weight.double() - before[name].double())
        layer = f"{prefix}.{name.removesuffix('.weight')}"
        found |= {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}
    return found
