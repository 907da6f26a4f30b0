"""Clean latents of a batch, and the shape that a model wants them in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.contracts import able
from genzoo.core.contracts.models import HasFrames
from genzoo.core.errors import DataError, NonFiniteError, ShapeError, UsageError
from genzoo.core.seeds import SampleStreams
from genzoo.core.types import Batch, LatentCodec

LARGEST = 1e6  # far beyond what any codec knows, and far below what float32 holds


def model_latent_shape(model: nn.Module) -> tuple[int, ...]:
    """Shape of one sample's latents, such as (4, 32, 32), or (16, 4, 32, 32) for a model of clips.

    Raises UsageError for a model that does not say it.
    """
    plain: Any = model
    clips = able(model, HasFrames)
    frames = () if clips is None else (clips.num_frames,)
    lacking = [name for name in ("in_channels", "input_size") if not hasattr(model, name)]
    if lacking:
        raise UsageError(
            f"{type(model).__name__} has no {' and no '.join(lacking)}",
            why="a task reads from them what one sample of its latents is",
            fix="set them in its constructor, or give task.latent_shape",
        )
    size = plain.input_size
    return (*frames, plain.in_channels, *((size, size) if isinstance(size, int) else size))


def channel_axis_of(latent_shape: tuple[int, ...]) -> int:
    """Where batches of such latents have their channels: 1 for images, 2 for clips (b, f, c, h, w)."""
    return 2 if len(latent_shape) == 4 else 1


def batch_latents(
    batch: Batch,
    codec: LatentCodec | None,
    generator: SampleStreams,
    shape: tuple[int, ...],
    device: torch.device,
) -> Tensor:
    """The latents of a batch's "pixels", or of the "moments" that a latent cache holds.

    codec: None takes the pixels themselves.   shape: expected of one sample.
    Returns (b, *shape) float32 (float64 stays).   Raises DataError, ShapeError.
    """
    if "moments" in batch:
        if codec is None:
            raise DataError("the batch holds cached moments, but the task has no codec to read them")
        latents = codec.sample_moments(batch["moments"].to(device), generator)
    elif "pixels" in batch:
        pixels = batch["pixels"].to(device)
        latents = pixels if codec is None else codec.encode(pixels, generator)
    else:
        raise DataError(
            "the batch has neither pixels nor moments", why=f"it holds {', '.join(sorted(batch))}"
        )
    if tuple(latents.shape[1:]) != shape:
        raise ShapeError(
            f"latents are {tuple(latents.shape[1:])} but the model takes {shape}",
            fix="make the model's in_channels and input_size those of the codec's latents",
        )
    return latents if latents.dtype == torch.float64 else latents.float()


def initial_noise(
    shape: tuple[int, ...], channel_axis: int, generator: SampleStreams, like: Tensor
) -> Tensor:
    """What sampling starts from: standard normal, channels on axis 1, one sample for each stream.

    shape: of one sample, channels where the model has them.   like: a parameter; gives device and float64.
    """
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    rows = torch.empty(len(generator), *shape, device=like.device, dtype=dtype)
    return torch.movedim(generator.randn_like(rows), channel_axis, 1)


def check_latents(latents: Tensor) -> None:
    """Raise NonFiniteError when a sampler returned what no picture can be made of.

    A decoder or a clamp would make black or white pictures of infinity, and nobody would be told.
    """
    largest = latents.abs().amax() if latents.numel() else torch.zeros(())
    if not bool(largest <= LARGEST):  # NaN too
        raise NonFiniteError(f"the sampler returned numbers up to {float(largest):.3g}")


def decoded(latents: Tensor, codec: LatentCodec | None, channel_axis: int) -> Tensor:
    """Pixels in [-1, 1] of sampled latents whose channels are on axis 1; the dtype of the latents."""
    check_latents(latents)
    moved = torch.movedim(latents, 1, channel_axis)
    pixels = moved if codec is None else codec.decode(moved)
    return pixels.to(latents.dtype).clamp(-1, 1)
