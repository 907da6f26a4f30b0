"""Precision and recall in bounded memory: peak memory and time, beside torch-fidelity.

Checked for equal results first. Every form runs in its own process, so that a peak is its own.

    python benchmarks/cases/precision_recall.py [--generated 50000 --reference 10000] [--peer] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from typing import Any

import torch

DIMENSIONS = 2048


def features(count: int, seed: int, dimensions: int = DIMENSIONS) -> torch.Tensor:
    """Clusters, so that precision and recall are neither 0 nor 1."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(50, dimensions, generator=torch.Generator().manual_seed(0))
    which = torch.randint(0, 50 if seed == 1 else 40, (count,), generator=generator)
    return centres[which] + 0.7 * torch.randn(count, dimensions, generator=generator)


def judge(form: str, generated: int, reference: int) -> dict[str, Any]:
    """One form's result, seconds, and the growth of the process's peak memory over the features' own."""
    data = features(generated, 2), features(reference, 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    if form == "genzoo":
        from genzoo.evaluation.precision_recall import precision_recall

        values = precision_recall(*data)
    else:
        from torch_fidelity.metric_prc import calculate_precision_recall_part

        values = calculate_precision_recall_part(*data)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"values": list(values), "seconds": seconds, "extra MiB": (after - before) / 1024}


def _in_process(arguments: tuple[str, int, int]) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(judge, arguments)


def bound_mib(generated: int, reference: int, rows: int = 2048, columns: int = 8192) -> float:
    """Memory beside the features: centred copies, and four blocks of distances."""
    return (4 * (generated + reference) * DIMENSIONS + 4 * 4 * rows * columns) / 2**20


def run(generated: int = 6000, reference: int = 3000, peer: bool = True) -> dict[str, Any]:
    """Results of each form; refuses to report when they disagree."""
    forms = ["genzoo", "torch-fidelity"] if peer else ["genzoo"]
    results = {form: _in_process((form, generated, reference)) for form in forms}
    ours = results["genzoo"]["values"]
    for form, result in results.items():
        if any(abs(a - b) > 1e-6 for a, b in zip(result["values"], ours, strict=True)):
            raise SystemExit(f"{form} gives {result['values']}, genzoo {ours}")
    return {
        "case": "precision_recall",
        "generated": generated,
        "reference": reference,
        "dimensions": DIMENSIONS,
        "threads": torch.get_num_threads(),
        "bound MiB": bound_mib(generated, reference),
        "forms": results,
    }


def main() -> None:
    """Print the result; with --json also write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generated", type=int, default=6000)
    parser.add_argument("--reference", type=int, default=3000)
    parser.add_argument("--peer", action="store_true", help="also run torch-fidelity, whose memory grows")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    text = json.dumps(run(arguments.generated, arguments.reference, arguments.peer), indent=2)
    print(text)
    if arguments.json:
        with open(arguments.json, "w") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
