"""How well an autoencoder gives back the pictures it is shown, and how large its latents are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from genzoo.core.contracts import able
from genzoo.core.contracts.parts import MeasuresLatents, Reconstructs
from genzoo.core.errors import DataError, UsageError
from genzoo.core.registry import DATASETS
from genzoo.evaluation.colour import ciede2000, lab

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.core.types import Dataset, MeasuredRun

PICTURES = ("seen", "held_out")
AT_ONCE = 64


def psnr(reconstructed: Tensor, pixels: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each picture, (b,).   Both (b, c, h, w) in [-1, 1]."""
    mse = ((reconstructed - pixels) / 2).square().flatten(1).mean(1)
    return -10 * mse.clamp_min(1e-12).log10()


def reconstruction(
    run: MeasuredRun, *, num: int = 512, seed: int = 0, pictures: str = "seen"
) -> dict[str, float | int | str]:
    """Mean PSNR and mean CIEDE2000 (sRGB, all pixels) over `num` pictures.

    pictures: "seen" are the run's data, "held_out" those that its data's `split` keeps from training. Where
    latents are continuous also their standard deviation: one over it is the codec's `scaling_factor` that
    gives them unit variance.
    """
    trained = run.task().model
    model = able(trained, Reconstructs)
    if model is None:
        raise UsageError("reconstruction judges autoencoders", why=f"the run trains {type(trained).__name__}")
    dataset = _pictures(run, pictures)
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:num]
    pixels = torch.stack([dataset.fetch(int(index))["pixels"] for index in order])
    rebuilt = torch.cat([model.reconstruct(part).cpu() for part in pixels.split(AT_ONCE)])
    found: dict[str, float | int | str] = {
        "psnr": psnr(rebuilt, pixels).mean().item(),
        "ciede2000": ciede2000(lab(rebuilt), lab(pixels)).mean().item(),
        "num": len(pixels),
        "pictures": pictures,
    }
    latents = able(trained, MeasuresLatents)
    if latents is not None:
        found["latent_deviation"] = latents.latent_deviation(pixels)
    return found


def _pictures(run: MeasuredRun, pictures: str) -> Dataset:
    if pictures not in PICTURES:
        raise UsageError(f"pictures is {pictures!r}", fix=f"use one of {', '.join(PICTURES)}")
    if pictures == "seen":
        seen: Dataset = run.dataset()
        return seen
    data = run.plan.data
    if data.arguments.get("split") != "train":
        raise DataError(
            "training saw every picture, so none is held out",
            fix="hold some out and set data.split=train, or measure with pictures: seen",
        )
    other: Dataset = DATASETS.get(data.name)(**data.without("split").arguments, split="held_out")
    return other
