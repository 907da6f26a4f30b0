"""Cost of a training step against the number of tokens: DiM beside a DiT of as many parameters."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.measure import apart
from benchmarks.registry import Options, case
from genzoo.api import create_model

COMMON = {"hidden_size": 96, "patch_size": 2, "in_channels": 1, "num_classes": 10, "learn_sigma": False}
MODELS: dict[str, dict[str, Any]] = {
    "dim": {"name": "dim", "depth": 4, "d_state": 8},
    "dit": {"name": "dit", "depth": 5, "num_heads": 4, "mlp_ratio": 3.6875},
}
"""Those of studies/dim_against_dit.yaml: 862 thousand parameters each."""


def step(who: str, tokens: int) -> Callable[[], None]:
    """A loss of one sample and its gradients."""
    torch.manual_seed(0)
    side = COMMON["patch_size"] * math.isqrt(tokens)
    settings = {**MODELS[who], **COMMON, "input_size": side}
    model = create_model(settings.pop("name"), **settings)
    x, label = torch.randn(1, 1, side, side), torch.tensor([1])

    def run() -> None:
        model.zero_grad()
        loss = (model(x, torch.tensor([500]), label) - x).square().mean()
        loss.backward()
        if not loss.isfinite():
            raise RuntimeError(f"{who} of {tokens} tokens: the loss is not finite; no timing")

    return run


@case("token_training")
def token_training(options: Options) -> list[dict[str, Any]]:
    """Forward and backward of one sample, fp32: processor ms and extra MB in fresh processes; tokens=."""
    counts = [int(count) for count in options.settings.get("tokens", "256,1024,4096").split(",")]
    return [_row(count, options.repeats) for count in counts]


def _row(tokens: int, repeats: int) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {who: [] for who in MODELS}
    for _ in range(repeats):
        for who in MODELS:
            setup = f"""
import torch
from benchmarks.cases.token_training import step
torch.set_num_threads(1)
step({who!r}, 16)()
run = step({who!r}, {tokens})
"""
            found[who].append(apart(setup, "run()"))
    ratios = [b["cpu_seconds"] / a["cpu_seconds"] for a, b in zip(found["dim"], found["dit"], strict=True)]
    return {
        "name": f"{tokens} tokens",
        "tokens": tokens,
        "ms": {who: _spread([1e3 * one["cpu_seconds"] for one in each]) for who, each in found.items()},
        "times_slower": {"dit": _spread(ratios)},
        "extra_mb": {who: max(one["extra_mb"] for one in each) for who, each in found.items()},
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
