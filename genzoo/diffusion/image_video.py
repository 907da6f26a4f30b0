"""Joint image-video training (Latte): stills behind each clip, labelled one by one, at its timestep."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genzoo.core.errors import DataError, ShapeError
from genzoo.core.seeds import SampleStreams
from genzoo.core.types import Batch, LatentCodec
from genzoo.nn.embeddings import drop_labels


def append_stills(clips: Tensor, batch: Batch, codec: LatentCodec | None, generator: SampleStreams) -> Tensor:
    """Latents of clips with those of their stills behind.

    clips: latents (b, f, c, h, w).   batch["image_pixels"]: (b, s, c', h', w'), or "image_moments" of a
    latent cache, (b, s, 2c, h, w).   Returns (b, f + s, c, h, w).
    """
    if clips.ndim != 5:
        raise DataError(
            "the batch holds stills beside clips, but the model takes images",
            fix="use a model of clips, or data without image_pixels",
        )
    if "image_moments" in batch:
        if codec is None:
            raise DataError("the batch holds cached moments, but the task has no codec to read them")
        stills = codec.sample_moments(batch["image_moments"].to(clips.device), generator)
    else:
        pixels = batch["image_pixels"].to(clips.device)
        stills = pixels if codec is None else codec.encode(pixels, generator)
    if stills.shape[:1] + stills.shape[2:] != clips.shape[:1] + clips.shape[2:]:
        raise ShapeError(f"stills {tuple(stills.shape)} do not go with clips {tuple(clips.shape)}")
    return torch.cat([clips, stills.to(clips.dtype)], dim=1)


def has_stills(batch: Batch) -> bool:
    """Whether a batch holds stills beside its clips."""
    return "image_pixels" in batch or "image_moments" in batch


def still_labels(batch: Batch, num_stills: int) -> Tensor:
    """One label for each still.   Returns (b, s) int64."""
    labels: Tensor | None = batch.get("image_labels")
    if labels is None or labels.ndim != 2 or labels.shape[1] != num_stills:
        seen = "no image_labels" if labels is None else f"image_labels {tuple(labels.shape)}"
        raise DataError(f"the batch holds {num_stills} stills a clip but {seen}", fix="give each a label")
    return labels.long()


def drop_still_labels(
    labels: Tensor, probability: float, num_classes: int, generator: SampleStreams
) -> Tensor:
    """Each label replaced by the null class on its own.   labels: (b, s)."""
    columns = [drop_labels(column, probability, num_classes, generator) for column in labels.unbind(1)]
    return torch.stack(columns, dim=1)


def still_options(batch: Batch, num_frames: int) -> dict[str, Any]:
    """What a model of clips is called with beside the prepared clip; nothing without stills."""
    num_stills = batch["latents"].shape[1] - num_frames
    if not num_stills:
        return {}
    return {"image_labels": batch.get("image_labels"), "use_image_num": num_stills}
