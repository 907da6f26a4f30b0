"""How near a control made again from a picture comes to the one it was given: a measure for each kind.

Maps are (b, h, w), normals (b, 3, h, w); arithmetic in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, pad

from genzoo.core.errors import ShapeError

SIGMA, TAPS, K_1, K_2 = 1.5, 11, 0.01, 0.03
# Wang, Simoncelli and Bovik 2003, finest scale first
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SMALLEST_SIDE = (TAPS - 1) * 2 ** (len(SCALE_WEIGHTS) - 1)
SHORTEST_NORMAL = 0.5
WITHIN_DEGREES = (11.25, 22.5, 30.0)


def exact_f1(found: Tensor, control: Tensor) -> Tensor:
    """F1 of each picture's edges, pixel by pixel, (b,); two empty maps agree.   Both (b, h, w) bool."""
    both = (found & control).flatten(1).sum(1).double()
    total = found.flatten(1).sum(1) + control.flatten(1).sum(1)
    return torch.where(total > 0, 2 * both / total.clamp_min(1), torch.ones_like(both))


def ssim(found: Tensor, control: Tensor) -> Tensor:
    """Structural similarity of each picture over all its pixels, (b,).   Both (b, h, w) in [0, 1]."""
    return _structure(found, control)[0]


def ms_ssim(found: Tensor, control: Tensor) -> Tensor:
    """SSIM over five scales, (b,); what is negative counts as 0. Raises ShapeError for sides up to 160."""
    if min(found.shape[-2:]) <= SMALLEST_SIDE:
        raise ShapeError(
            f"MS-SSIM of pictures {tuple(found.shape[-2:])}",
            fix=f"sides have to exceed {SMALLEST_SIDE} pixels",
        )
    total = torch.ones(len(found), dtype=torch.float64, device=found.device)
    for number, weight in enumerate(SCALE_WEIGHTS):
        whole, contrast = _structure(found, control)
        is_last = number == len(SCALE_WEIGHTS) - 1
        total = total * (whole if is_last else contrast).clamp_min(0) ** weight
        found, control = (avg_pool2d(x[:, None].double(), 2)[:, 0] for x in (found, control))
    return total


def depth_errors(found: Tensor, control: Tensor) -> dict[str, Tensor]:
    """Root mean square errors (b,) in the maps' units: as they are, and after the best shift and scale >= 0.

    A negative scale is not allowed: inverted depth would score well.
    """
    p, d = found.double().flatten(1), control.double().flatten(1)
    centred, other = p - p.mean(1, keepdim=True), d - d.mean(1, keepdim=True)
    variance = centred.square().mean(1)
    scale = ((centred * other).mean(1) / variance.clamp_min(1e-12)).clamp_min(0)
    scale = torch.where(variance > 0, scale, torch.zeros_like(scale))
    return {
        "rmse": (p - d).square().mean(1).sqrt(),
        "rmse_aligned": (scale[:, None] * centred - other).square().mean(1).sqrt(),
    }


def normal_errors(found: Tensor, control: Tensor) -> dict[str, float]:
    """Angles in degrees between normals of all pixels: mean, median, root mean square, shares below some.

    Both (b, 3, h, w) in [-1, 1]. Pixels where either vector is short, such as a background, are left out; nan
    when none is left.
    """
    one, other = (x.double().movedim(1, -1).reshape(-1, 3) for x in (found, control))
    lengths = torch.stack([one.norm(dim=1), other.norm(dim=1)])
    kept = (lengths >= SHORTEST_NORMAL).all(0)
    cosine = (one * other).sum(1)[kept] / lengths[:, kept].prod(0)
    angles = torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))
    shares = {f"within_{limit:g}": (angles < limit).double().mean() for limit in WITHIN_DEGREES}
    middle = angles.quantile(0.5) if len(angles) else angles.mean()
    found_angles = {"mean": angles.mean(), "median": middle, "rmse": angles.square().mean().sqrt()}
    return {name: float(value) for name, value in (found_angles | shares).items()} | {
        "pixels": int(kept.sum())
    }


def _structure(found: Tensor, control: Tensor) -> tuple[Tensor, Tensor]:
    """Similarity over all pixels, and the contrast term over those that no padding reaches, (b,) each."""
    x, y = found.double()[:, None], control.double()[:, None]
    distance = torch.arange(TAPS, dtype=torch.float64, device=x.device) - TAPS // 2
    kernel = torch.exp(-((distance / SIGMA) ** 2) / 2)
    kernel = torch.outer(kernel, kernel)[None, None] / kernel.sum() ** 2
    reach = TAPS // 2
    around = [pad(part, (reach,) * 4, mode="reflect") for part in (x, y)]
    mean_x, mean_y, xx, yy, xy = (
        conv2d(part, kernel)[:, 0]
        for part in (*around, around[0] ** 2, around[1] ** 2, around[0] * around[1])
    )
    spread = (xx - mean_x**2).clamp_min(0) + (yy - mean_y**2).clamp_min(0)
    contrast = (2 * (xy - mean_x * mean_y) + K_2**2) / (spread + K_2**2)
    light = (2 * mean_x * mean_y + K_1**2) / (mean_x**2 + mean_y**2 + K_1**2)
    inner = contrast[..., reach:-reach, reach:-reach]
    return (light * contrast).flatten(1).mean(1), inner.flatten(1).mean(1)
