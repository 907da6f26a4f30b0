"""The interval of a FID-sized Fréchet distance, and all four ball measures with theirs: seconds, memory."""

from __future__ import annotations

import time
from typing import Any

import torch

from benchmarks.cases.frechet import moments
from benchmarks.cases.precision_recall import bound, features
from benchmarks.measure import peak_memory
from benchmarks.registry import Options, case
from genzoo.evaluation.intervals.frechet import frechet_influence
from genzoo.evaluation.intervals.halves import half_samples
from genzoo.evaluation.measures.neighbourhoods import neighbourhoods
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
    """Distance and interval of `rows` (50000) features of 2,048 dimensions: moments and one pass more."""
    check()
    count = int(options.settings.get("rows", 50_000))
    rows, reference = features(count, 2), gaussian(features(6000, 1))
    wall, cpu = time.perf_counter(), time.process_time()
    own = gaussian(rows)
    middle = time.process_time()
    found = frechet_influence(rows, own, reference)
    row = {
        "name": f"n={count}",
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "cpu_seconds_of_moments": middle - cpu,
        "target_seconds": SECONDS,
    }
    return [row | {"value": found.value, "standard_error": found.standard_error, "bias": found.bias}]


@case("neighbourhoods")
def ball_measures(options: Options) -> list[dict[str, Any]]:
    """Precision, recall, density and coverage of `generated` (12000) x `reference` (6000), with intervals."""
    sizes = [int(options.settings.get(name, n)) for name, n in (("generated", 12_000), ("reference", 6_000))]
    x, y = features(sizes[0], 2), features(sizes[1], 1)
    rows = []
    for name, halves in (("alone", None), (f"and {HALVES} half-samples", half_samples(len(x), HALVES, 0))):
        wall, cpu = time.perf_counter(), time.process_time()
        found = neighbourhoods(x, y, halves=halves)
        row = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        values = {key: getattr(found, key) for key in ("precision", "recall", "density", "coverage")}
        rows.append({"name": f"{sizes[0]} x {sizes[1]}, {name}", **row, **values})
    setup = f"""
import torch
torch.set_num_threads({torch.get_num_threads()})
from benchmarks.cases.precision_recall import features
from genzoo.evaluation.intervals.halves import half_samples
from genzoo.evaluation.measures.neighbourhoods import neighbourhoods
x, y, halves = features({sizes[0]}, 2), features({sizes[1]}, 1), half_samples({sizes[0]}, {HALVES}, 0)
"""
    extra = peak_memory(setup, "neighbourhoods(x, y, halves=halves)")
    rows[-1] |= {"extra_mb": extra, "bound_mb": bound(*sizes)}
    return rows
