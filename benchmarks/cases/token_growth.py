"""Time and memory of a forward pass against the number of tokens: DiM beside DiT of the same name."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.measure import compare, interleave, peak_memory
from benchmarks.registry import Options, case
from genzoo.api import create_model

MODELS = {"dim": "dim_s2", "dit": "dit_s2"}
PATCH_AREA = 4
REPEATED = 4096  # above so many tokens one round takes minutes


def forward(name: str, side: int) -> Callable[[], torch.Tensor]:
    """A pass of one sample of (side / 2)^2 tokens without gradients."""
    torch.manual_seed(0)
    model = create_model(name, input_size=side).eval()
    x, label = torch.randn(1, 4, side, side), torch.tensor([1])

    def run() -> torch.Tensor:
        with torch.no_grad():
            out: torch.Tensor = model(x, torch.tensor([500]), label)
        if not out.isfinite().all():
            raise RuntimeError(f"{name} at {side} x {side}: the output is not finite; no timing")
        return out

    return run


def memory_of(name: str, side: int) -> float:
    """Extra peak MB of that pass in a fresh process."""
    setup = f"""
import torch
from benchmarks.cases.token_growth import forward
torch.set_num_threads(1)
forward({name!r}, 16)()
run = forward({name!r}, {side})
"""
    return peak_memory(setup, "run()")


@case("token_growth")
def token_growth(options: Options) -> list[dict[str, Any]]:
    """Forward of DiM-S/2 and DiT-S/2, 256 to 16,384 tokens, float32, with extra memory; tokens=, clock=."""
    counts = [int(count) for count in options.settings.get("tokens", "256,1024,4096,16384").split(",")]
    rows = []
    for count in counts:
        side = math.isqrt(count * PATCH_AREA)
        calls = {who: forward(name, side) for who, name in MODELS.items()}
        repeats = options.repeats if count <= REPEATED else 1
        row = compare("dim", interleave(calls, repeats, clock=options.settings.get("clock", "wall")))
        memory = {who: memory_of(name, side) for who, name in MODELS.items()}
        about = {"name": f"{count} tokens", "tokens": count, "repeats": repeats}
        rows.append(about | row | {"extra_mb": memory})
    return [*rows, {"name": "equal times", "crossover_tokens": crossover(rows)}]


def crossover(rows: list[dict[str, Any]]) -> float | None:
    """How many tokens DiT takes longer from, between two rows on log axes; None where it never does."""
    points = [(math.log(row["tokens"]), math.log(row["times_slower"]["dit"]["median"])) for row in rows]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if y0 < 0 <= y1:
            return round(math.exp(x0 - y0 * (x1 - x0) / (y1 - y0)))
    return None
