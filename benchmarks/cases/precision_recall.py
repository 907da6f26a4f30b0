"""Precision and recall in bounded memory, against torch-fidelity."""

from __future__ import annotations

import time
from typing import Any

import torch

from benchmarks.measure import peak_memory
from benchmarks.registry import Options, case
from genzoo.evaluation.measures.precision_recall import COLUMNS, ROWS, precision_recall

DIMENSIONS = 2048
OURS = "from genzoo.evaluation.measures.precision_recall import precision_recall as judge"
THEIRS = "from torch_fidelity.metric_prc import calculate_precision_recall_part as judge"


def features(count: int, seed: int) -> torch.Tensor:
    """Clusters, so that precision and recall are neither 0 nor 1; seed 2 misses a fifth of them."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(50, DIMENSIONS, generator=torch.Generator().manual_seed(0))
    which = torch.randint(0, 40 if seed == 2 else 50, (count,), generator=generator)
    return centres[which] + 0.7 * torch.randn(count, DIMENSIONS, generator=generator)


def bound(generated: int, reference: int, listed: int = 0) -> float:
    """MB beside the features: their centred copies, ten blocks of distances, norms and masks.

    listed: neighbours of each generated row, which half-samples need, in float32 and two int64.
    """
    floats = (generated + reference) * DIMENSIONS + 10 * ROWS * COLUMNS
    return (4 * floats + 20 * listed * generated) / 2**20


def memory(judge: str, generated: int, reference: int) -> float:
    """Extra MB of one form, in a process of its own."""
    setup = f"""
import torch
torch.set_num_threads({torch.get_num_threads()})
from benchmarks.cases.precision_recall import features
{judge}
generated, reference = features({generated}, 2), features({reference}, 1)
"""
    return peak_memory(setup, "judge(generated, reference)")


@case("precision_recall")
def memory_and_time(options: Options) -> list[dict[str, Any]]:
    """Precision and recall of `generated` (12000) x `reference` (6000): seconds and extra memory."""
    from torch_fidelity.metric_prc import calculate_precision_recall_part

    generated = int(options.settings.get("generated", 12_000))
    reference = int(options.settings.get("reference", 6_000))
    data = features(generated, 2), features(reference, 1)
    rows: list[dict[str, Any]] = []
    found = []
    for name, judge, form in (
        ("genzoo", OURS, precision_recall),
        ("torch-fidelity", THEIRS, calculate_precision_recall_part),
    ):
        if name != "genzoo" and "peer" not in options.settings.get("run", "peer"):
            continue
        started = time.perf_counter()
        found.append(tuple(form(*data)))
        seconds = time.perf_counter() - started
        extra = memory(judge, generated, reference)
        row = {"name": f"{name} {generated} x {reference}", "seconds": seconds, "extra_mb": extra}
        rows.append(row | ({"bound_mb": bound(generated, reference)} if name == "genzoo" else {}))
    if any(abs(a - b) > 1e-6 for other in found[1:] for a, b in zip(found[0], other, strict=True)):
        raise SystemExit(f"precision_recall: the forms differ: {found}")
    return [row | {"precision": found[0][0], "recall": found[0][1]} for row in rows]
