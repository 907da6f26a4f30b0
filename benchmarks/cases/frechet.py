"""Fréchet distance of 2,048-dimensional statistics beside scipy's matrix square root, checked to 1e-9 first.

python benchmarks/cases/frechet.py [--dimensions 2048] [--repeats 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from genzoo.evaluation.frechet import frechet_distance
from genzoo.evaluation.statistics import FeatureStatistics

TOLERANCE = 1e-9


def moments(dimensions: int, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of `count` correlated features whose variances fall off as real features' do."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(dimensions, dimensions, generator=generator, dtype=torch.float64) / dimensions**0.5
    scale = torch.linspace(0, -2, dimensions, dtype=torch.float64).exp()
    collected = FeatureStatistics()
    for start in range(0, count, 2048):
        rows = torch.randn(min(2048, count - start), dimensions, generator=generator, dtype=torch.float64)
        collected.update((rows * scale) @ mix + 0.1 * seed)
    result = collected.gaussian()
    return result.mean, result.covariance


def with_matrix_square_root(mu_1: Any, sigma_1: Any, mu_2: Any, sigma_2: Any) -> float:
    """The textbook form: scipy.linalg.sqrtm of the product."""
    from scipy.linalg import sqrtm

    root = sqrtm((sigma_1 @ sigma_2).numpy())
    return float((mu_1 - mu_2).square().sum() + sigma_1.trace() + sigma_2.trace()) - 2 * float(
        root.real.trace()
    )


def with_general_eigenvalues(mu_1: Any, sigma_1: Any, mu_2: Any, sigma_2: Any) -> float:
    """torch-fidelity's form, called as it is."""
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    one, other = (
        {"mu": mu.numpy(), "sigma": sigma.numpy()} for mu, sigma in ((mu_1, sigma_1), (mu_2, sigma_2))
    )
    return float(fid_statistics_to_metric(one, other, False)["frechet_inception_distance"])


FORMS: dict[str, Callable[..., float]] = {
    "genzoo": frechet_distance,
    "scipy sqrtm": with_matrix_square_root,
    "torch-fidelity": with_general_eigenvalues,
}


def run(dimensions: int = 2048, repeats: int = 3, count: int | None = None) -> dict[str, Any]:
    """Medians in seconds, rounds interleaved; refuses to report when a form disagrees."""
    count = count or 3 * dimensions
    data = (*moments(dimensions, count, 1), *moments(dimensions, count, 2))
    seconds: dict[str, list[float]] = {name: [] for name in FORMS}
    values: dict[str, float] = {}
    for _ in range(repeats):
        for name, form in FORMS.items():
            started = time.perf_counter()
            values[name] = form(*data)
            seconds[name].append(time.perf_counter() - started)
    for name, value in values.items():
        relative = abs(value - values["genzoo"]) / abs(values["genzoo"])
        if relative > TOLERANCE:
            raise SystemExit(f"{name} gives {value}, genzoo {values['genzoo']}: {relative:.1e} apart")
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "case": "frechet",
        "dimensions": dimensions,
        "threads": torch.get_num_threads(),
        "value": values["genzoo"],
        "largest relative difference": max(abs(v - values["genzoo"]) for v in values.values())
        / values["genzoo"],
        "seconds": medians,
        "times faster": {name: medians[name] / medians["genzoo"] for name in FORMS if name != "genzoo"},
    }


def main() -> None:
    """Print the result; with --json also write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dimensions", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    text = json.dumps(run(arguments.dimensions, arguments.repeats), indent=2)
    print(text)
    if arguments.json:
        with open(arguments.json, "w") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
