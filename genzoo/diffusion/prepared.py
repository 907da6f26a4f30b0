"""What every class-conditional task of this package does to a batch before it draws noise."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from genzoo.core.seeds import SampleStreams
from genzoo.core.types import Batch, LatentCodec
from genzoo.diffusion.image_video import append_stills, has_stills, still_options
from genzoo.diffusion.labels import num_classes_of, training_labels
from genzoo.diffusion.latents import batch_latents


def prepared_samples(
    model: nn.Module,
    batch: Batch,
    generator: SampleStreams,
    *,
    codec: LatentCodec | None,
    latent_shape: tuple[int, ...],
    label_dropout: float,
) -> dict[str, Any]:
    """Clean latents and labels, some hidden; drawn from the samples' own streams, latents first.

    Returns "latents" (b, c, h, w), and "class_labels" (b,) for a model with classes. Stills follow the
    frames of their clip, (b, f + s, c, h, w), and have "image_labels" (b, s).
    """
    device = next(model.parameters()).device
    latents = batch_latents(batch, codec, generator, latent_shape, device)
    num_frames = latents.shape[1]
    if has_stills(batch):
        latents = append_stills(latents, batch, codec, generator)
    num_stills = latents.shape[1] - num_frames
    labels = training_labels(batch, num_stills, num_classes_of(model), label_dropout, generator, device)
    return {"latents": latents, **labels}


def predict(
    model: nn.Module, x_t: Tensor, timesteps: Tensor, batch: Batch, latent_shape: tuple[int, ...]
) -> Tensor:
    """The model's output for a prepared batch at x_t, in x_t's dtype; stills and routes are told to it."""
    options: dict[str, Any] = still_options(batch, latent_shape[0]) if x_t.ndim == 5 else {}
    if "route" in batch:
        options["route"] = batch["route"]
    output: Tensor = model(x_t, timesteps, batch.get("class_labels"), **options)
    return output.to(x_t.dtype)
