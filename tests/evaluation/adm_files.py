"""Files that ADM's own evaluator reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from genzoo.evaluation.statistics import Gaussian


def write_adm_reference(
    path: Path, pool: Gaussian, spatial: Gaussian | None = None, images: np.ndarray | None = None
) -> Path:
    """Statistics in float64, images uint8 (n, h, w, 3) as arr_0."""
    arrays = {"mu": pool.mean.numpy(), "sigma": pool.covariance.numpy()}
    if spatial is not None:
        arrays |= {"mu_s": spatial.mean.numpy(), "sigma_s": spatial.covariance.numpy()}
    if images is not None:
        arrays["arr_0"] = images
    np.savez(path, **arrays)
    return path
