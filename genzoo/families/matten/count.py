"""Counting as the papers seem to have counted: rules fitted to their tables, not documented by them.

Both start from what the thop package counts of one clip, and repeat the adaLN rows as Latte's code does: each
sequence of a spatial or temporal block computes the modulation of its sample anew.
"""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from genzoo.nn.count import count_params, on_meta, thop_count
from genzoo.nn.mamba import MambaMixer

LATTE_BATCH = 3


def latte_paper_count(model: nn.Module) -> dict[str, float]:
    """Latte's own profile: thop on three clips. Parameters without embedding tables and fixed tables."""
    counted = thop_count(model, batch=1)
    gflops = LATTE_BATCH * (counted["gflops"] + repeated_rows(model) / 1e9)
    return {**counted, "gflops": gflops, "batch": LATTE_BATCH}


def matten_paper_count(model: Any) -> dict[str, float]:
    """What Tables 2 and 3 fit: two flops per multiply-add of one clip, all learned parameters.

    Of each mixer one direction is counted without in_proj: out_proj, x_proj, dt_proj and the convolution. The
    products of queries, keys and values and the scans are left out.
    """
    model = on_meta(model)
    params = count_params(model)
    learned = params["num_params"] - params["params_fixed"]
    tokens = model.num_frames * math.prod(model.grid)
    mixers = sum(_counted_weights(m) for m in model.modules() if isinstance(m, MambaMixer)) * tokens
    gflops = 2 * (thop_count(model, batch=1)["gflops"] + (mixers + repeated_rows(model)) / 1e9)
    return {"params": learned / 1e6, "gflops": gflops, "num_params": learned}


def repeated_rows(model: Any) -> int:
    """Multiply-adds of one clip for modulations computed once per sequence, beyond once per clip."""
    patches = math.prod(model.grid)
    sequences = {"spatial": model.num_frames, "temporal": patches}
    extra: int = sum(
        (sequences.get(order, 1) - 1) * _modulation_weights(block)
        for block, order in zip(model.blocks, model.orders, strict=True)
    )
    return extra + (model.num_frames - 1) * _modulation_weights(model.final_layer)


def _modulation_weights(block: nn.Module) -> int:
    modulation: Any = dict(block.named_children()).get("adaLN_modulation")
    return 0 if modulation is None else modulation[1].weight.numel()


def _counted_weights(mixer: MambaMixer) -> int:
    counted = ("out_proj.weight", "x_proj.weight", "dt_proj.weight", "conv1d.weight")
    return sum(mixer.get_parameter(name).numel() for name in counted)
