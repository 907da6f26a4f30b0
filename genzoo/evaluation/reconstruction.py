"""How well an autoencoder gives back the pictures it is shown, and how large its latents are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

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
    model: Any = run.task().model
    if not hasattr(model, "latent_deviation"):
        raise UsageError("reconstruction judges autoencoders", why=f"the run trains {type(model).__name__}")
    dataset = run.dataset()
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:num]
    pixels = torch.stack([dataset.fetch(int(index))["pixels"] for index in order])
    rebuilt = torch.cat([model.reconstruct(part) for part in pixels.split(64)])
    return {"psnr": psnr(rebuilt, pixels).mean().item(), "latent_deviation": model.latent_deviation(pixels)}
