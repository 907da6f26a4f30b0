"""What models of clips share: patches, positions and conditions around the blocks, and how blocks scan.

A clip may be followed by stills (joint image-video training, as in Latte): frames of their own that share the
clip's timestep, have their own labels, and never meet the clip or one another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from genzoo.core.errors import ShapeError, UsageError
from genzoo.nn.embeddings import LabelEmbedding, TimestepEmbedding
from genzoo.nn.patch import PatchEmbed, unpatchify
from genzoo.nn.scan_order import from_sequences, to_sequences


class VideoShell(Protocol):
    """The attributes that models of clips have in common."""

    num_classes: int
    in_channels: int
    input_size: int
    num_frames: int
    patch_size: int
    x_embedder: PatchEmbed
    y_embedder: LabelEmbedding | None
    pos_embed: nn.Parameter


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


def embed_frames(model: VideoShell, x: Tensor) -> Tensor:
    """Patches of every frame with their positions in it.   x: (b, f, c, h, w).   Returns (b, f, n, d)."""
    tokens = model.x_embedder(rearrange(x, "b f c h w -> (b f) c h w")) + model.pos_embed
    frames: Tensor = rearrange(tokens, "(b f) n d -> b f n d", f=x.shape[1])
    return frames


def predict_tokens(final_layer: nn.Module, tokens: Tensor, c: Conditions) -> Tensor:
    """The final layer over every frame.   tokens: (b, f, n, d).   Returns (b, f, n, num_outputs)."""
    frames, patches = tokens.shape[1:3]
    predicted = final_layer(to_sequences(tokens, "spatial"), c.of_frames(frames))
    return from_sequences(predicted, "spatial", num_frames=frames, num_patches=patches)


def lay_out_frames(tokens: Tensor, patch_size: int) -> Tensor:
    """Flat patches to frames.   tokens: (b, f, h*w, p*p*c).   Returns (b, f, c, h*p, w*p)."""
    frames = unpatchify(tokens.flatten(0, 1), patch_size)
    laid_out: Tensor = rearrange(frames, "(b f) c h w -> b f c h w", f=tokens.shape[1])
    return laid_out


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


def check_video_inputs(
    model: VideoShell,
    x: Tensor,
    timesteps: Tensor,
    class_labels: Tensor | None,
    image_labels: Tensor | None = None,
    use_image_num: int = 0,
) -> None:
    """Raise an error that names the shapes when the inputs are not those of the model."""
    size = (model.num_frames + use_image_num, model.in_channels, model.input_size, model.input_size)
    if x.ndim != 5 or tuple(x.shape[1:]) != size:
        stills = f" with use_image_num={use_image_num}" if use_image_num else ""
        raise ShapeError(
            f"the model takes (b, {', '.join(map(str, size))}){stills} but x is {tuple(x.shape)}",
            fix="x is (b, frames, channels, height, width)",
        )
    if timesteps.shape != x.shape[:1]:
        raise ShapeError(
            f"x has {len(x)} samples but timesteps has shape {tuple(timesteps.shape)}; pass one for each"
        )
    _check_labels("class_labels", class_labels, (len(x),), model.num_classes > 0, model.num_classes)
    expected = model.num_classes > 0 and use_image_num > 0
    _check_labels("image_labels", image_labels, (len(x), use_image_num), expected, model.num_classes)


def _check_labels(
    name: str, labels: Tensor | None, shape: tuple[int, ...], expected: bool, num_classes: int
) -> None:
    if (labels is not None) != expected:
        seen = f"no {name} were given" if labels is None else f"{name} were given"
        stills = " and no stills" if name == "image_labels" and labels is not None and num_classes else ""
        raise UsageError(f"the model has num_classes={num_classes}{stills} but {seen}")
    if labels is not None and tuple(labels.shape) != shape:
        raise ShapeError(f"{name} has shape {tuple(labels.shape)} but x needs {shape}")


def example_video_inputs(model: VideoShell) -> tuple[Tensor, Tensor, Tensor | None]:
    """Arguments of a forward pass for one clip, all zeros, beside the model's weights."""
    x = model.pos_embed.new_zeros(1, model.num_frames, model.in_channels, model.input_size, model.input_size)
    index = x.new_zeros(1).long()
    return x, index, index if model.num_classes else None


def check_video_sizes(*, input_size: int, patch_size: int, even: str | None = None, **sizes: int) -> None:
    """Raise an error for sizes below one, an input_size that makes no whole patches, or an odd `even`."""
    every = {"input_size": input_size, "patch_size": patch_size, **sizes}
    wrong = [f"{name}={value}" for name, value in every.items() if value < 1]
    if wrong:
        raise ShapeError(f"{', '.join(wrong)} must be at least 1")
    if input_size % patch_size:
        raise ShapeError(
            f"input_size {input_size} is no multiple of patch_size {patch_size}",
            fix="choose an input_size (the height of the latents) that can be cut into whole patches",
        )
    if even is not None and sizes[even] % 2:
        raise ShapeError(f"{even} is {sizes[even]} but these blocks come in pairs", fix=f"use an even {even}")
