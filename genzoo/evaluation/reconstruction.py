"""How well an autoencoder gives back the pictures it is shown, and how large its latents are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from genzoo.core.contracts import MeasuresLatents, able
from genzoo.core.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.core.types import MeasuredRun


def psnr(reconstructed: Tensor, pixels: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each picture, (b,).   Both (b, c, h, w) in [-1, 1]."""
    mse = ((reconstructed - pixels) / 2).square().flatten(1).mean(1)
    return -10 * mse.clamp_min(1e-12).log10()


def reconstruction(run: MeasuredRun, *, num: int = 512, seed: int = 0) -> dict[str, float]:
    """Mean PSNR over `num` pictures of the run's data, and the standard deviation of their latents.

    One over that deviation is the codec's `scaling_factor` that gives latents unit variance.
    """
    trained = run.task().model
    model = able(trained, MeasuresLatents)
    if model is None:
        raise UsageError("reconstruction judges autoencoders", why=f"the run trains {type(trained).__name__}")
    dataset = run.dataset()
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:num]
    pixels = torch.stack([dataset.fetch(int(index))["pixels"] for index in order])
    rebuilt = torch.cat([model.reconstruct(part) for part in pixels.split(64)])
    return {"psnr": psnr(rebuilt, pixels).mean().item(), "latent_deviation": model.latent_deviation(pixels)}
