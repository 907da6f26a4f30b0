"""Clips as tokens: conditions of their frames, positions, and how blocks scan them.

A clip may be followed by stills (joint image-video training, as in Latte): frames of their own that share the
clip's timestep, have their own labels, and never meet the clip or one another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from einops import repeat
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from genzoo.nn.embeddings import LabelEmbedding, TimestepEmbedding
from genzoo.nn.scan_order import from_sequences, to_sequences


@dataclass(frozen=True)
class Conditions:
    """video: (b, d), of the clip.   images: (b, s, d), of the stills, None without stills."""

    video: Tensor
    images: Tensor | None = None

    def of_frames(self, num_frames: int) -> Tensor:
        """Rows for f + s = num_frames frames: (b*(f + s), d), or (b, d) without stills, for f frames each."""
        if self.images is None:
            return self.video
        clip = repeat(self.video, "b d -> b f d", f=num_frames - self.images.shape[1])
        return torch.cat([clip, self.images], dim=1).flatten(0, 1)


def embed_conditions(
    t_embedder: TimestepEmbedding,
    y_embedder: LabelEmbedding | None,
    timesteps: Tensor,
    class_labels: Tensor | None,
    image_labels: Tensor | None,
    use_image_num: int,
) -> Conditions:
    """Timestep plus label embedding of the clip, and of each still with the same timestep."""
    t = t_embedder(timesteps)
    video = t if y_embedder is None else t + y_embedder(class_labels)
    if not use_image_num:
        return Conditions(video)
    images = repeat(t, "b d -> b s d", s=use_image_num)
    return Conditions(video, images if y_embedder is None else images + y_embedder(image_labels))


def predict_tokens(final_layer: nn.Module, tokens: Tensor, c: Conditions) -> Tensor:
    """The final layer over every frame.   tokens: (b, f, n, d).   Returns (b, f, n, num_outputs)."""
    frames, patches = tokens.shape[1:3]
    predicted = final_layer(to_sequences(tokens, "spatial"), c.of_frames(frames))
    return from_sequences(predicted, "spatial", num_frames=frames, num_patches=patches)


def add_frame_positions(tokens: Tensor, temp_embed: Tensor) -> Tensor:
    """Tell the frames of the clip apart; stills have no place in time.

    tokens: (b, f + s, n, d).   temp_embed: (1, f, d).
    """
    num_frames = temp_embed.shape[1]
    clip = tokens[:, :num_frames] + temp_embed[:, :, None]
    return clip if tokens.shape[1] == num_frames else torch.cat([clip, tokens[:, num_frames:]], dim=1)


def run_video_blocks(
    blocks: Iterable[nn.Module],
    orders: Sequence[str],
    tokens: Tensor,
    c: Conditions,
    temp_embed: Tensor,
    *,
    positions_at_input: bool = False,
    gradient_checkpointing: bool = False,
) -> Tensor:
    """Apply each block in its scan order.

    tokens: (b, f + s, n, d).   temp_embed: (1, f, d), added once: before the first block whose sequences
    cross frames (Latte), or at the input.   Returns (b, f + s, n, d).
    """
    num_frames, waiting = temp_embed.shape[1], True
    recompute = gradient_checkpointing and torch.is_grad_enabled()
    for block, order in zip(blocks, orders, strict=True):
        if waiting and (positions_at_input or order != "spatial"):
            tokens, waiting = add_frame_positions(tokens, temp_embed), False
        if recompute:
            tokens = checkpoint(apply_block, block, tokens, c, order, num_frames, use_reentrant=False)
        else:
            tokens = apply_block(block, tokens, c, order, num_frames)
    return tokens


def apply_block(block: nn.Module, tokens: Tensor, c: Conditions, order: str, num_frames: int) -> Tensor:
    """One block over the sequences of `order`.

    Spatial blocks see every frame and every still. Temporal blocks pass stills by. In a global order the clip
    is one sequence, and each still another.   tokens: (b, f + s, n, d).   Returns the same shape.
    """
    if order == "spatial":
        return _mix(block, tokens, c.of_frames(tokens.shape[1]), order)
    clip, stills = tokens[:, :num_frames], tokens[:, num_frames:]
    clip = _mix(block, clip, c.video, order)
    if c.images is None:
        return clip
    if order != "temporal":
        stills = _mix(block, stills, c.images.flatten(0, 1), "spatial")
    return torch.cat([clip, stills], dim=1)


def _mix(block: nn.Module, tokens: Tensor, c: Tensor, order: str) -> Tensor:
    frames, patches = tokens.shape[1:3]
    mixed = block(to_sequences(tokens, order), c)
    return from_sequences(mixed, order, num_frames=frames, num_patches=patches)
