"""Codecs between pixels and latents: none at all, or a KL autoencoder of the diffusers layout."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor

from genzoo.core.errors import CheckpointError, ShapeError, UsageError
from genzoo.core.files import put_file
from genzoo.core.reading import read_bytes
from genzoo.core.seeds import SampleStreams
from genzoo.core.shapes_alone import shapes
from genzoo.nn.graphs import Graph
from genzoo.nn.resting import Resting
from genzoo.pretrained.autoencoder_files import find_files, fingerprint, read_config
from genzoo.pretrained.autoencoder_graphs import decoder_graph
from genzoo.pretrained.fitting import check_against, spec_of
from genzoo.pretrained.hub import WEIGHTS_FILE, resolve, weights_lack
from genzoo.pretrained.loading import load_state
from genzoo.pretrained.normalisation import Normalisation, measured, per_channel

# names of the attention layers before diffusers 0.15, as published autoencoders still have them
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

STATISTICS = "statistics.json"  # beside weights that go along


class IdentityCodec:
    """Pixels are the latents, times `scale`."""

    def __init__(self, *, scale: float = 1.0) -> None:
        if not scale > 0:
            raise UsageError(f"the codec's scale must be positive, not {scale}")
        self.scale = scale
        self.fingerprint = "identity"

    def latent_shape(self, pixel_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the pixels."""
        return tuple(pixel_shape)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        """There is nothing to move."""

    def moments(self, pixels: Tensor) -> Tensor:
        """The pixels themselves."""
        return pixels

    def sample_moments(self, moments: Tensor, generator: SampleStreams) -> Tensor:
        """The pixels times `scale`; nothing is drawn."""
        return moments * self.scale

    def encode(self, pixels: Tensor, generator: SampleStreams) -> Tensor:
        """The pixels times `scale`; nothing is drawn."""
        return pixels * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """The latents over `scale`."""
        return latents / self.scale


class AutoencoderKLCodec:
    """A diffusers AutoencoderKL with frozen weights, from a hub id or a local folder.

    path: folder or hub id with config.json and diffusion_pytorch_model.safetensors (or .bin).
    subfolder: where in it; left out, the top or else "vae", as in whole pipelines.   variant: such as "fp16".
    scaling_factor: latents are (z - shift) * scaling_factor; left out, the autoencoder's own (0.18215 for
    SD 1.x).   statistics: a file of `genzoo prepare latent-statistics`, or its content: latents are then
    (z - mean) / std x multiplier of each channel, and scaling_factor is not used.
    slice_size: images encoded or decoded at once, which bounds memory.
    precision: of the autoencoder's arithmetic; latents of a bf16 one are known as such.   channels_last: how
    its maps lie in memory, which changes rounding and speed.
    Encoding and decoding return float32. In float16 an autoencoder that asks for it (force_upcast) stays in
    float32.
    """

    def __init__(
        self,
        path: str,
        *,
        subfolder: str | None = None,
        variant: str | None = None,
        revision: str | None = None,
        scaling_factor: float | None = None,
        statistics: str | Mapping[str, Any] | None = None,
        multiplier: float = 1.0,
        slice_size: int = 8,
        precision: Literal["fp32", "bf16"] = "fp32",
        channels_last: bool = False,
    ) -> None:
        if slice_size < 1:
            raise UsageError(f"slice_size is a number of images, not {slice_size}")
        if precision not in ("fp32", "bf16"):
            raise UsageError(f"the codec's precision is {precision!r}", fix="use fp32 or bf16")
        self.slice_size = slice_size
        self._resting: Resting | None = None
        self._dtype = torch.bfloat16 if precision == "bf16" else None
        self._layout = torch.channels_last if channels_last else torch.preserve_format
        config_file, weights_file = _find(path, subfolder, variant, revision)
        self.config = _read_config(config_file)
        self.vae = _build(self.config, weights_file)
        self.scaling_factor = float(scaling_factor or self.vae.config.scaling_factor)
        known = fingerprint("autoencoder_kl", self.config, weights_file, without=_after(self.config))
        self.fingerprint = known + ("-bf16" if self._dtype else "")
        self._statistics = statistics
        self.measured_by = None if statistics is None else "statistics"
        self.normalisation = (
            self._own_normalisation()
            if statistics is None
            else measured(
                statistics,
                codec=self.fingerprint,
                channels=self.vae.config.latent_channels,
                multiplier=multiplier,
            )
        )
        self.to("cpu")

    def _own_normalisation(self) -> Normalisation:
        config = self.vae.config
        if config.latents_mean is not None and config.latents_std is not None:  # SDXL with both
            return per_channel(config.latents_mean, config.latents_std, multiplier=self.scaling_factor)
        return Normalisation(float(config.shift_factor or 0.0), self.scaling_factor)

    def save(self, folder: Path) -> dict[str, str | None]:
        """Write the autoencoder into a folder, as diffusers does; the folder itself as `path`."""
        self.vae.save_pretrained(str(folder))
        told: dict[str, str | None] = {"path": "", "subfolder": None, "variant": None, "revision": None}
        if isinstance(self._statistics, str):
            put_file(folder / STATISTICS, read_bytes(self._statistics, "the latents' statistics"))
            told["statistics"] = STATISTICS
        return told

    def latent_shape(self, pixel_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(c, h, w) or (f, c, h, w) of the pixels to that of their latents."""
        *frames, channels, height, width = pixel_shape
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        if channels != self.vae.config.in_channels or height % factor or width % factor:
            raise ShapeError(
                f"the autoencoder cannot encode pixels of shape {tuple(pixel_shape)}",
                fix=f"use {self.vae.config.in_channels} channels, height and width multiples of {factor}",
            )
        return (*frames, self.vae.config.latent_channels, height // factor, width // factor)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        """Move the autoencoder; its own precision holds before `dtype`, and see the class for float16."""
        keep = dtype == torch.float16 and self.vae.config.force_upcast
        wanted = self._dtype or (torch.float32 if keep else dtype)
        # not the method of diffusers, which warns of layers to be kept in float32 where there are none
        torch.nn.Module.to(self.vae, device, wanted)
        if self._layout == torch.channels_last:
            torch.nn.Module.to(self.vae, memory_format=self._layout)
        if self._resting is not None:
            self._resting.rest(device)

    def offload(self) -> None:
        """From now on the weights lie in the host's memory but while they encode or decode."""
        self._resting = Resting([self.vae])

    @torch.no_grad()
    def moments(self, pixels: Tensor) -> Tensor:
        """Mean and log-variance of the latents, unscaled.

        pixels: (b, c, h, w) or (b, f, c, h, w) in [-1, 1].   Returns (b, 2c', h', w') or (b, f, 2c', h', w').
        """
        self.latent_shape(tuple(pixels.shape[1:]))
        return self._sliced(lambda part: self.vae.encode(part).latent_dist.parameters, pixels)

    def sample_moments(self, moments: Tensor, generator: SampleStreams) -> Tensor:
        """Latents drawn from cached moments, each from its sample's own stream, and scaled."""
        mean, log_variance = moments.float().chunk(2, dim=-3)
        deviation = (0.5 * log_variance.clamp(-30, 20)).exp()
        return self.normalisation.apply(mean + deviation * generator.randn_like(mean))

    def encode(self, pixels: Tensor, generator: SampleStreams) -> Tensor:
        """Scaled latents of pixels: `sample_moments` of their `moments`."""
        return self.sample_moments(self.moments(pixels), generator)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pixels in about [-1, 1], not clamped; (b, c', h', w') or (b, f, c', h', w')."""
        return self._sliced(lambda part: self.vae.decode(part).sample, self.normalisation.undo(latents))

    def graphs(self) -> dict[str, Graph]:
        """Scaled latents to pixels; height and width are those of the autoencoder's own pictures."""
        side = self.vae.config.sample_size // 2 ** (len(self.vae.config.block_out_channels) - 1)
        return decoder_graph(self.vae, side, self.normalisation)

    def _sliced(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """A function of images over a batch of images or of videos, a few images at a time."""
        with contextlib.nullcontext() if self._resting is None else self._resting.awake():
            return self._in_slices(function, x)

    def _in_slices(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        parameter = next(self.vae.parameters())
        images = rearrange(x, "b f c h w -> (b f) c h w") if x.ndim == 5 else x
        parts = images.to(parameter.device, parameter.dtype, memory_format=self._layout).split(
            self.slice_size
        )
        y = torch.cat([function(part).float() for part in parts])
        return rearrange(y, "(b f) c h w -> b f c h w", f=x.shape[1]) if x.ndim == 5 else y


def _find(
    path: str, subfolder: str | None, variant: str | None, revision: str | None
) -> tuple[Path, Path | None]:
    """config.json and the weights; None for these where shapes will do and they are not there."""
    if subfolder is None or not weights_lack(path, WEIGHTS_FILE, subfolder=subfolder):
        return find_files(path, subfolder, variant, revision)
    return resolve(path, "config.json", subfolder=subfolder, revision=revision), None


def _read_config(path: Path) -> dict[str, Any]:
    config = read_config(path)
    if config.get("_class_name", "AutoencoderKL") != "AutoencoderKL":
        raise CheckpointError(
            "the folder does not hold an AutoencoderKL",
            where=str(path),
            why=f"its config describes {config['_class_name']!r}",
            fix="codec.name=autoencoder reads diffusers' other autoencoders",
        )
    return {key: value for key, value in config.items() if not key.startswith("_")}


def _build(config: dict[str, Any], weights_file: Path | None) -> Any:
    from diffusers import AutoencoderKL

    try:
        with contextlib.nullcontext() if weights_file is not None else shapes():
            vae = AutoencoderKL.from_config(config)
    except (TypeError, ValueError) as error:
        raise CheckpointError("the autoencoder's config cannot be built", why=str(error)[:200]) from error
    if weights_file is None:
        return vae.requires_grad_(False).eval()
    spec = spec_of(vae)
    state = {_renamed(key): value for key, value in load_state(weights_file, spec).items()}
    vae.load_state_dict(check_against(spec, state, source=weights_file.name))
    return vae.requires_grad_(False).eval()


def _renamed(key: str) -> str:
    *path, layer, leaf = ["", "", *key.split(".")]
    if "attentions" in path and layer in _OLD_NAMES:
        return ".".join([*path[2:], _OLD_NAMES[layer], leaf])
    return key


def _after(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys of what comes after the moments; those of channels only where they are used."""
    channels = [key for key in ("latents_mean", "latents_std") if config.get(key) is not None]
    return ("scaling_factor", "shift_factor", *channels)
