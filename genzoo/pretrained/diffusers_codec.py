"""Any picture autoencoder of diffusers as a codec; which one, its config.json says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from genzoo.core.errors import CheckpointError, ShapeError, UsageError, did_you_mean
from genzoo.core.seeds import SampleStreams
from genzoo.pretrained.autoencoder_files import find_files, fingerprint, read_config
from genzoo.pretrained.fitting import check_against, spec_of
from genzoo.pretrained.loading import load_state
from genzoo.pretrained.normalisation import (
    Normalisation,
    measured,
    of_batch_norm,
    pack,
    per_channel,
    unpack,
)

# what comes after the moments
AFTER = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")


@dataclass(frozen=True)
class Kind:
    """What differs between diffusers' autoencoders.   Each function takes the model.

    factor: pixels along a side of a latent.   channels: of the latents of a model.   normalisation: its own.
    draws: whether encoding gives a distribution.   frames: whether it takes clips, here of one frame.
    packs: whether squares of latents become channels.   fixed_size: the only height and width, if any.
    zero_to_one: whether it takes pixels in [0, 1].
    """

    factor: Callable[[Any], int]
    channels: Callable[[Any], int]
    normalisation: Callable[[Any], Normalisation]
    draws: bool = True
    frames: bool = False
    packs: bool = False
    fixed_size: Callable[[Any], int | None] = lambda vae: None
    zero_to_one: bool = False


def _kl(vae: Any) -> Normalisation:
    config = vae.config
    if config.latents_mean is not None and config.latents_std is not None:
        return per_channel(config.latents_mean, config.latents_std, multiplier=float(config.scaling_factor))
    return Normalisation(float(config.shift_factor or 0.0), float(config.scaling_factor))


def _by_channel(vae: Any) -> Normalisation:
    return per_channel(vae.config.latents_mean, vae.config.latents_std)


def _blocks(vae: Any) -> int:
    return 2 ** (len(vae.config.block_out_channels) - 1)


KINDS: Mapping[str, Kind] = {
    "AutoencoderKL": Kind(_blocks, lambda vae: vae.config.latent_channels, _kl),
    "AutoencoderDC": Kind(
        lambda vae: vae.spatial_compression_ratio,
        lambda vae: vae.config.latent_channels,
        lambda vae: Normalisation(0.0, float(vae.config.scaling_factor)),
        draws=False,
    ),
    "AutoencoderKLFlux2": Kind(
        lambda vae: 2 * _blocks(vae),
        lambda vae: 4 * vae.config.latent_channels,
        lambda vae: of_batch_norm(vae.bn.running_mean, vae.bn.running_var, vae.config.batch_norm_eps),
        packs=True,
    ),
    "AutoencoderKLWan": Kind(
        lambda vae: vae.spatial_compression_ratio, lambda vae: vae.config.z_dim, _by_channel, frames=True
    ),
    "AutoencoderKLQwenImage": Kind(
        lambda vae: vae.spatial_compression_ratio, lambda vae: vae.config.z_dim, _by_channel, frames=True
    ),
    # it normalises and scales its latents itself
    "AutoencoderRAE": Kind(
        lambda vae: vae.decoder_patch_size,
        lambda vae: vae.config.encoder_hidden_size,
        lambda vae: Normalisation(),
        draws=False,
        fixed_size=lambda vae: vae.decoder_image_size,
        zero_to_one=True,
    ),
}


class DiffusersCodec:
    """A picture autoencoder of diffusers with frozen weights: KL, DC, RAE, FLUX.2, Wan, Qwen-Image.

    path, subfolder, variant, revision: where config.json and the weights lie, as for `autoencoder_kl`.
    statistics: a file of `genzoo prepare latent-statistics`, or its content, in place of the autoencoder's
    own normalisation.   multiplier: of latents normalised so.   slice_size: images encoded or decoded at
    once. Clips go frame by frame; what an autoencoder of clips saves in time is not used.
    """

    def __init__(
        self,
        path: str,
        *,
        subfolder: str | None = None,
        variant: str | None = None,
        revision: str | None = None,
        statistics: str | Mapping[str, Any] | None = None,
        multiplier: float = 1.0,
        slice_size: int = 8,
    ) -> None:
        if slice_size < 1:
            raise UsageError(f"slice_size is a number of images, not {slice_size}")
        if multiplier <= 0:
            raise UsageError(f"multiplier is {multiplier}", where="codec.multiplier", fix="use 1")
        self.slice_size = slice_size
        config_file, weights_file = find_files(path, subfolder, variant, revision)
        config = read_config(config_file)
        name = str(config.get("_class_name"))
        if name not in KINDS:
            raise CheckpointError(
                f"{name} is no autoencoder that can be used here",
                where=str(config_file),
                fix=did_you_mean(name, KINDS) or f"known are {', '.join(KINDS)}",
            )
        self.kind = KINDS[name]
        self.vae = build_frozen(name, config, weights_file)
        self.fingerprint = fingerprint(name, config, weights_file, without=AFTER)
        self.channels, self.factor = self.kind.channels(self.vae), self.kind.factor(self.vae)
        self.measured_by = None if statistics is None else "statistics"
        self.normalisation = (
            self.kind.normalisation(self.vae)
            if statistics is None
            else measured(statistics, codec=self.fingerprint, channels=self.channels, multiplier=multiplier)
        )

    def latent_shape(self, pixel_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(c, h, w) or (f, c, h, w) of the pixels to that of their latents."""
        *frames, channels, height, width = pixel_shape
        size = self.kind.fixed_size(self.vae)
        wrong = height % self.factor or width % self.factor or (size and (height, width) != (size, size))
        if channels != 3 or wrong:
            wanted = f"{size} x {size}" if size else f"multiples of {self.factor}"
            raise ShapeError(
                f"the autoencoder cannot encode pixels of shape {tuple(pixel_shape)}",
                fix=f"use 3 channels, height and width {wanted}",
            )
        return (*frames, self.channels, height // self.factor, width // self.factor)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        """Move the autoencoder."""
        self.vae.to(device, dtype)

    @torch.no_grad()
    def moments(self, pixels: Tensor) -> Tensor:
        """Mean and log-variance of the latents, 2c channels; latents, c, of autoencoders that draw nothing.

        pixels: (b, 3, h, w) or (b, f, 3, h, w) in [-1, 1]. Not normalised.
        """
        self.latent_shape(tuple(pixels.shape[1:]))
        return self._sliced(self._encode, (pixels + 1) / 2 if self.kind.zero_to_one else pixels)

    def sample_moments(self, moments: Tensor, generator: SampleStreams) -> Tensor:
        """Normalised latents, drawn from each sample's own stream where there is a variance."""
        latents = moments.float()
        if self.kind.draws:
            mean, log_variance = latents.chunk(2, dim=-3)
            deviation = (0.5 * log_variance.clamp(-30, 20)).exp()
            latents = mean + deviation * generator.randn_like(mean)
        return self.normalisation.apply(latents)

    def encode(self, pixels: Tensor, generator: SampleStreams) -> Tensor:
        """Normalised latents of pixels: `sample_moments` of their `moments`."""
        return self.sample_moments(self.moments(pixels), generator)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pixels in about [-1, 1], not clamped; (b, c, h, w) or (b, f, c, h, w)."""
        pixels = self._sliced(self._decode, self.normalisation.undo(latents))
        return pixels * 2 - 1 if self.kind.zero_to_one else pixels

    def _encode(self, images: Tensor) -> Tensor:
        clips = images[:, :, None] if self.kind.frames else images
        encoded = self.vae.encode(clips)
        found: Tensor = encoded.latent_dist.parameters if self.kind.draws else encoded.latent
        found = found[:, :, 0] if self.kind.frames else found
        # mean and log-variance are packed apart, so that halves stay halves
        return torch.cat([pack(half) for half in found.chunk(2, 1)], 1) if self.kind.packs else found

    def _decode(self, latents: Tensor) -> Tensor:
        latents = unpack(latents) if self.kind.packs else latents
        decoded: Tensor = self.vae.decode(latents[:, :, None] if self.kind.frames else latents).sample
        return decoded[:, :, 0] if self.kind.frames else decoded

    def _sliced(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """A function of images over a batch of images or of videos, a few images at a time."""
        parameter = next(self.vae.parameters())
        images = rearrange(x, "b f c h w -> (b f) c h w") if x.ndim == 5 else x
        parts = images.to(parameter.device, parameter.dtype).split(self.slice_size)
        y = torch.cat([function(part).float() for part in parts])
        return rearrange(y, "(b f) c h w -> b f c h w", f=x.shape[1]) if x.ndim == 5 else y


def build_frozen(name: str, config: Mapping[str, Any], weights_file: Path) -> Any:
    """An autoencoder of diffusers by its class, with all of a file's weights. Raises CheckpointError."""
    import diffusers

    try:
        vae = getattr(diffusers, name).from_config(dict(config))
    except (TypeError, ValueError) as error:
        raise CheckpointError("the autoencoder's config cannot be built", why=str(error)[:200]) from error
    spec = spec_of(vae)
    vae.load_state_dict(check_against(spec, load_state(weights_file, spec), source=weights_file.name))
    return vae.requires_grad_(False).eval()
