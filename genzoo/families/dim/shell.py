"""What DiM and DiT share: everything around the blocks, as functions over their common attributes."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from genzoo.core.errors import ShapeError, UsageError
from genzoo.nn.embeddings import LabelEmbedding, TimestepEmbedding


class Shell(Protocol):
    """The attributes that the two models have in common."""

    num_classes: int
    in_channels: int
    input_size: int
    t_embedder: TimestepEmbedding
    y_embedder: LabelEmbedding | None
    pos_embed: nn.Parameter


def embed_condition(model: Shell, timesteps: Tensor, class_labels: Tensor | None) -> Tensor:
    """The sum of timestep and label embedding, c: (b, d)."""
    c: Tensor = model.t_embedder(timesteps)
    return c if model.y_embedder is None else c + model.y_embedder(class_labels)


def check_inputs(model: Shell, x: Tensor, timesteps: Tensor, class_labels: Tensor | None) -> None:
    """Raise an error that names the shapes when the inputs are not those of the model."""
    expected = (model.in_channels, model.input_size, model.input_size)
    if x.ndim != 4 or tuple(x.shape[1:]) != expected:
        raise ShapeError(f"the model takes (b, {', '.join(map(str, expected))}) but x is {tuple(x.shape)}")
    if timesteps.shape != x.shape[:1]:
        raise ShapeError(
            f"x has {len(x)} samples but timesteps has shape {tuple(timesteps.shape)}; pass one for each"
        )
    if (class_labels is None) != (model.num_classes == 0):
        seen = "no class_labels were given" if class_labels is None else "class_labels were given"
        raise UsageError(f"the model has num_classes={model.num_classes} but {seen}")
    if class_labels is not None and class_labels.shape != x.shape[:1]:
        raise ShapeError(f"x has {len(x)} samples but class_labels has shape {tuple(class_labels.shape)}")


def example_inputs(model: Shell) -> tuple[Tensor, Tensor, Tensor | None]:
    """Arguments of a forward pass for one sample, all zeros, beside the model's weights."""
    x = model.pos_embed.new_zeros(1, model.in_channels, model.input_size, model.input_size)
    index = x.new_zeros(1).long()
    return x, index, index if model.num_classes else None


def check_sizes(**sizes: int) -> None:
    """Raise an error for sizes below one, and for an input_size that cannot be cut into patches."""
    wrong = {name: value for name, value in sizes.items() if value < 1}
    if wrong:
        raise ShapeError(
            f"{', '.join(f'{name}={value}' for name, value in wrong.items())} must be at least 1"
        )
    if sizes["input_size"] % sizes["patch_size"]:
        raise ShapeError(
            f"input_size {sizes['input_size']} is no multiple of patch_size {sizes['patch_size']}",
            fix="choose an input_size (the height of the latents) that can be cut into whole patches",
        )
