"""The Fréchet distance of FID-sized statistics against scipy's matrix square root and torch-fidelity."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.measure import compare, interleave
from benchmarks.registry import Options, case
from genzoo.evaluation.measures.frechet import frechet_distance
from genzoo.evaluation.statistics import FeatureStatistics

TOLERANCE = 1e-9


def moments(dimensions: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of correlated features whose variances fall off as real features' do."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(dimensions, dimensions, generator=generator, dtype=torch.float64) / dimensions**0.5
    scale = torch.linspace(0, -2, dimensions, dtype=torch.float64).exp()
    collected = FeatureStatistics()
    for _ in range(6):
        rows = torch.randn(dimensions // 2, dimensions, generator=generator, dtype=torch.float64)
        collected.update((rows * scale) @ mix + 0.1 * seed)
    result = collected.gaussian()
    return result.mean, result.covariance


def with_matrix_square_root(mu_1: Any, sigma_1: Any, mu_2: Any, sigma_2: Any) -> float:
    """The textbook form: scipy.linalg.sqrtm of the product."""
    from scipy.linalg import sqrtm

    root = sqrtm((sigma_1 @ sigma_2).numpy())
    traces = float((mu_1 - mu_2).square().sum() + sigma_1.trace() + sigma_2.trace())
    return traces - 2 * float(root.real.trace())


def with_general_eigenvalues(mu_1: Any, sigma_1: Any, mu_2: Any, sigma_2: Any) -> float:
    """torch-fidelity's form, called as it is."""
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    one = {"mu": mu_1.numpy(), "sigma": sigma_1.numpy()}
    other = {"mu": mu_2.numpy(), "sigma": sigma_2.numpy()}
    return float(fid_statistics_to_metric(one, other, False)["frechet_inception_distance"])


FORMS = {
    "genzoo": frechet_distance,
    "scipy sqrtm": with_matrix_square_root,
    "torch-fidelity": with_general_eigenvalues,
}


@case("frechet")
def frechet(options: Options) -> list[dict[str, Any]]:
    """Fréchet distance of statistics of `dimensions` (2048), agreeing to 1e-9 first."""
    dimensions = int(options.settings.get("dimensions", 2048))
    data = (*moments(dimensions, 1), *moments(dimensions, 2))
    values = {name: form(*data) for name, form in FORMS.items()}
    gap = max(abs(value / values["genzoo"] - 1) for value in values.values())
    if gap > TOLERANCE:
        raise SystemExit(f"frechet: the forms differ by {gap:.1e}: {values}; nothing was timed")
    calls = {name: lambda form=form: form(*data) for name, form in FORMS.items()}
    row = compare("genzoo", interleave(calls, options.repeats))
    return [{"name": f"d={dimensions}", **row, "gap": gap, "target": 3}]
