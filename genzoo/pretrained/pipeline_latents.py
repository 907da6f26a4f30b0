"""Pictures as the latents that a pipeline of diffusers works on, whatever its autoencoder is called.

A video's autoencoder reads a picture as a clip of one frame.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genzoo.core.errors import ShapeError, WeightsError
from genzoo.core.seeds import SampleStreams
from genzoo.pretrained.pipeline_step import accepted

# where pipelines of diffusers note how many pixels lie along one side of a latent
_FACTORS = ("vae_scale_factor", "vae_scale_factor_spatial", "vae_spatial_compression_ratio")
# whose latents have a place for frames; the transformers of the others have none
_CLIPS = (
    "AllegroTransformer3DModel",
    "LTXVideoTransformer3DModel",
    "LatteTransformer3DModel",
    "WanTransformer3DModel",
)


def pixel_factor(pipeline: Any) -> int:
    """Pixels along one side of a latent."""
    found = [getattr(pipeline, name) for name in _FACTORS if hasattr(pipeline, name)]
    if not found:
        raise WeightsError(
            "the base's pipeline does not say how small its latents are", where=type(pipeline).__name__
        )
    return int(found[0])


def own_size(pipeline: Any) -> int:
    """The side in pixels of the pictures that a base was made for, or 512 where it does not say."""
    config = pipeline.transformer.config
    side = config.get("sample_size") or config.get("sample_height")
    return int(side) * pixel_factor(pipeline) if isinstance(side, int) else 512


def paints_from(vae: Any, dtype: torch.dtype) -> None:
    """Let an autoencoder that lies in a type decode latents of any: pipelines hand on what they denoised."""
    decode = vae.decode

    def decoded(latents: Tensor, *given: Any, **options: Any) -> Any:
        return decode(latents.to(dtype), *given, **options)

    vars(vae)["decode"] = decoded


@torch.no_grad()
def moments(pipeline: Any, pixels: Tensor) -> Tensor:
    """Mean and log variance (1, 2c, ...) of one picture (1, 3, h, w) in [-1, 1]; the mean alone (1, c, ...)
    of an autoencoder that draws nothing.
    """
    factor = pixel_factor(pipeline)
    if pixels.shape[-1] % factor or pixels.shape[-2] % factor:
        raise ShapeError(
            f"the base's autoencoder cannot encode pictures of {tuple(pixels.shape[-2:])} pixels",
            fix=f"data.image_size a multiple of {factor}",
        )
    found = _encoded(pipeline, pixels)
    drawn = getattr(found, "latent_dist", None)
    return found.latent if drawn is None else drawn.parameters


def _encoded(pipeline: Any, pixels: Tensor) -> Any:
    vae = pipeline.vae
    pixels = pixels.to(vae.dtype)
    return vae.encode(pixels[:, :, None] if _reads_clips(vae) else pixels)


def latents_of(pipeline: Any, found: Tensor, streams: SampleStreams) -> Tensor:
    """Latents (b, ...) as the transformer takes them, drawn from `moments` (b, ...)."""
    vae = pipeline.vae
    channels = int(getattr(vae.config, "latent_channels", None) or vae.config.z_dim)
    z = found
    if found.shape[1] == 2 * channels:
        mean, log_variance = found.chunk(2, dim=1)
        z = mean + (0.5 * log_variance.clamp(-30, 20)).exp() * streams.randn_like(mean)
    if type(pipeline.transformer).__name__ in _CLIPS and z.ndim == 4:
        z = z[:, :, None]
    return _packed(pipeline, _normalised(vae, z))


def _normalised(vae: Any, z: Tensor) -> Tensor:
    """What decoding undoes: (z - mean) / std of each channel, or (z - shift) * scale."""
    mean, std = _statistic(vae, "latents_mean", z), _statistic(vae, "latents_std", z)
    scale = float(vae.config.get("scaling_factor") or 1.0)
    if mean is not None and std is not None:
        return (z - mean) / std * scale
    return (z - float(vae.config.get("shift_factor") or 0.0)) * scale


def _statistic(vae: Any, name: str, like: Tensor) -> Tensor | None:
    """Of a buffer or a list in the config, a number for each channel."""
    buffers = dict(vae.named_buffers())
    found = buffers[name] if name in buffers else vae.config.get(name)
    if found is None:
        return None
    return torch.as_tensor(found).to(like).reshape(1, -1, *[1] * (like.ndim - 2))


def _packed(pipeline: Any, latents: Tensor) -> Tensor:
    """As a row of tokens where the pipeline wants them so."""
    if not hasattr(pipeline, "_pack_latents"):
        return latents
    options = {
        "patch_size": getattr(pipeline, "transformer_spatial_patch_size", 1),
        "patch_size_t": getattr(pipeline, "transformer_temporal_patch_size", 1),
    }
    packed: Tensor = pipeline._pack_latents(latents, **accepted(pipeline._pack_latents, options))
    return packed


def empty_latents(pipeline: Any, num: int, side: int) -> Tensor:
    """Zeros of the shape of `num` pictures' latents, `side` pixels high and wide."""
    vae, inner = pipeline.vae, side // pixel_factor(pipeline)
    channels = int(getattr(vae.config, "latent_channels", None) or vae.config.z_dim)
    frames = [1] if type(pipeline.transformer).__name__ in _CLIPS else []
    return _packed(pipeline, torch.zeros(num, channels, *frames, inner, inner, device=vae.device))


def _reads_clips(vae: Any) -> bool:
    return any(isinstance(module, torch.nn.Conv3d) for module in vae.modules())
