"""The two halves of a KL autoencoder as graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genzoo.nn.graphs import Graph, graph
from genzoo.pretrained.normalisation import Normalisation


class Moments(nn.Module):
    """Mean and log-variance of the latents, unscaled, one after the other on the axis of channels."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, pixels: Tensor) -> Tensor:
        """(b, 3, h, w) in [-1, 1] -> (b, 2c, h', w')."""
        moments: Tensor = self.vae.encode(pixels).latent_dist.parameters
        return moments


class Pixels(nn.Module):
    """Pixels of normalised latents, not clamped."""

    scale: Tensor
    offset: Tensor

    def __init__(self, vae: Any, normalisation: Normalisation) -> None:
        super().__init__()
        self.vae = vae
        for name, value in (("scale", normalisation.scale), ("offset", normalisation.offset)):
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float32).reshape(-1, 1, 1))

    def forward(self, latents: Tensor) -> Tensor:
        """(b, c, h', w') -> (b, 3, h, w)."""
        pixels: Tensor = self.vae.decode(latents / self.scale + self.offset).sample
        return pixels


def encoder_graph(vae: Any, side: int) -> dict[str, Graph]:
    """side: of the example's pixels."""
    pixels = next(vae.parameters()).new_zeros(1, vae.config.in_channels, side, side)
    return {"encoder": graph(Moments(vae), "moments", pixels=pixels)}


def decoder_graph(vae: Any, side: int, normalisation: Normalisation | None = None) -> dict[str, Graph]:
    """side: of the example's latents.   normalisation: what was done to them; nothing when left out."""
    latents = next(vae.parameters()).new_zeros(1, vae.config.latent_channels, side, side)
    return {"decoder": graph(Pixels(vae, normalisation or Normalisation()), "pixels", latents=latents)}
