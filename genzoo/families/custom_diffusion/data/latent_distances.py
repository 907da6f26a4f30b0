"""How near pictures are to each other, in the latents of the base's own autoencoder: no other network.

Latents have unit variance, so two unrelated pictures are about sqrt(2) apart, less what all pictures of a
collection share (such as a white background).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from genzoo.core.contracts import able
from genzoo.core.contracts.parts import ScalesLatents
from genzoo.core.types import LatentCodec


@torch.no_grad()
def latent_features(pixels: Tensor, vae: LatentCodec | None) -> Tensor:
    """Mean latents (b, n), or the pixels of a base without autoencoder.   pixels: (b, 3, h, w) in [-1, 1]."""
    if vae is None:
        return pixels.flatten(1).float()
    parts = [vae.moments(part).float().chunk(2, dim=1)[0] for part in pixels.split(64)]
    scaled = able(vae, ScalesLatents)
    return torch.cat(parts).flatten(1) * (1.0 if scaled is None else float(scaled.scaling_factor))


def distances(first: Tensor, second: Tensor) -> Tensor:
    """Root mean squared differences (b, m) of all pairs.   first: (b, n).   second: (m, n)."""
    return torch.cdist(first, second) / first.shape[1] ** 0.5


def nearest_distance(samples: Tensor, pictures: Tensor) -> float:
    """Mean distance of each sample to the nearest of a concept's pictures.   (b, n), (m, n)."""
    return float(distances(samples, pictures).min(1).values.mean())


def share_found(samples: Tensor, pictures: Tensor, others: Tensor) -> float:
    """Share of samples that are nearer to one of the concept's pictures than to any other picture.

    samples: (b, n).   pictures: (m, n).   others: (k, n), a collection without the concept.
    """
    own = distances(samples, pictures).min(1).values
    return float((own < distances(samples, others).min(1).values).float().mean())


def share_named(samples: Tensor, names: Sequence[str], others: Tensor, their_names: Sequence[str]) -> float:
    """Share of samples whose nearest picture of a collection has the name that was asked for.

    samples: (b, n) for b names.   others: (k, n) with k names.
    """
    nearest = distances(samples, others).argmin(1).tolist()
    return sum(their_names[row] == name for row, name in zip(nearest, names, strict=True)) / len(names)


def drift(before: Tensor, after: Tensor) -> float:
    """How far samples moved that had the same noise and caption before and after something was taught.

    before, after: (b, n), one row per caption. In units of the mean distance between samples of different
    captions: 0 is no change, 1 is another picture.
    """
    moved = (before - after).square().mean(1).sqrt().mean()
    between = distances(before, before)
    apart = between[~torch.eye(len(before), dtype=torch.bool)].mean()
    return float(moved / apart)
