"""The interval of a FID-sized Fréchet distance, and all four ball measures with theirs: seconds, memory."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import torch

from benchmarks.cases.frechet import moments
from benchmarks.cases.precision_recall import bound, features
from benchmarks.measure import apart
from benchmarks.registry import Options, case
from genzoo.evaluation.intervals.frechet import frechet_influence
from genzoo.evaluation.measures.distances import SPARE
from genzoo.evaluation.measures.frechet import distance_between
from genzoo.evaluation.measures.neighbourhoods import LISTED
from genzoo.evaluation.statistics import FeatureStatistics, Gaussian

SECONDS = 60  # asked for at 50,000 rows of 2,048 dimensions, on two cores
HALVES = 50


def gaussian(rows: torch.Tensor) -> Gaussian:
    collected = FeatureStatistics()
    collected.update(rows)
    return collected.gaussian()


def check() -> None:
    """The influence is the derivative of the distance: leave one row out at a time, at a small size."""
    rows, reference = features(60, 2)[:, :9].double(), Gaussian(*moments(9, 1))
    found = frechet_influence(rows, gaussian(rows), reference)
    kept = [torch.cat([rows[:i], rows[i + 1 :]]) for i in range(len(rows))]
    values = torch.tensor([frechet_influence(part, gaussian(part), reference).value for part in kept])
    spread = ((len(rows) - 1) / len(rows) * (values - values.mean()).square().sum()).sqrt()
    if abs(found.standard_error / float(spread) - 1) > 0.2:
        raise SystemExit(
            f"frechet_interval: {found.standard_error} by influence, {float(spread)} by jackknife"
        )


@case("frechet_interval")
def frechet_interval(options: Options) -> list[dict[str, Any]]:
    """Distance and interval of `rows` (50000) features of 2,048 dimensions, as an evaluation takes them."""
    check()
    count = int(options.settings.get("rows", 50_000))
    rows, reference = features(count, 2), gaussian(features(6000, 1))
    wall, cpu = time.perf_counter(), [time.process_time()]
    own = gaussian(rows)
    cpu.append(time.process_time())
    value = distance_between(own, reference)
    cpu.append(time.process_time())
    found = frechet_influence(rows, own, reference)
    cpu.append(time.process_time())
    if abs(found.value / value - 1) > 1e-9:
        raise SystemExit(f"frechet_interval: {found.value} with the interval, {value} alone")
    stages = zip(("moments", "distance", "interval"), pairwise(cpu), strict=True)
    return [
        {
            "name": f"n={count}",
            "seconds": time.perf_counter() - wall,
            "cpu_seconds": cpu[-1] - cpu[0],
            **{f"cpu_seconds_of_{name}": end - start for name, (start, end) in stages},
            "target_seconds": SECONDS,
            **{name: getattr(found, name) for name in ("value", "standard_error", "bias")},
        }
    ]


@case("neighbourhoods")
def ball_measures(options: Options) -> list[dict[str, Any]]:
    """All four of `generated` (50000) x `reference` (10000), alone and with `halves` (0,50) for intervals."""
    sizes = [int(options.settings.get(name, n)) for name, n in (("generated", 50_000), ("reference", 10_000))]
    rows, listed = [], LISTED * 5 + SPARE
    for halves in map(int, options.settings.get("halves", f"0,{HALVES}").split(",")):
        setup = f"""
import torch
torch.set_num_threads({torch.get_num_threads()})
from benchmarks.cases.precision_recall import features
from genzoo.evaluation.intervals.halves import half_samples
from genzoo.evaluation.measures.neighbourhoods import neighbourhoods
x, y, halves = features({sizes[0]}, 2), features({sizes[1]}, 1), half_samples({sizes[0]}, {halves}, 0)
"""
        found = apart(setup, f"neighbourhoods(x, y, halves=halves if {halves} else None)")
        name = f"{sizes[0]} x {sizes[1]}" + (f", intervals by {halves} half-samples" if halves else "")
        rows.append({"name": name, **found, "bound_mb": bound(*sizes, listed=listed if halves else 0)})
    return rows
