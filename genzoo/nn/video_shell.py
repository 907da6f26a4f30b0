"""The shell that every model of clips has around its blocks: how it is built, what it takes, how it runs.

A family brings its blocks and their scan orders; patches, positions, conditions, the final layer and the
checks are the same for DiM, Latte and Matten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.errors import ShapeError, UsageError
from genzoo.nn.embeddings import (
    LabelEmbedding,
    TimestepEmbedding,
    position_parameter,
    sincos_1d,
    sincos_2d,
)
from genzoo.nn.modulation import FinalLayer
from genzoo.nn.patch import PatchEmbed
from genzoo.nn.video import (
    embed_conditions,
    embed_frames,
    lay_out_frames,
    predict_tokens,
    run_video_blocks,
)

FIXED_TABLES = ("pos_embed", "temp_embed")
"""Parameters of the shell that never learn: positions within a frame, and of frames."""


def open_shell(model: Any, arguments: Mapping[str, Any], *, even: str | None = None) -> None:
    """Check the sizes, remember the arguments, and add patches and positions.

    arguments: `locals()` at the top of a constructor.   even: name of an argument that must be even.
    """
    given = {name: value for name, value in arguments.items() if name not in ("self", "__class__")}
    sizes = ("depth", "hidden_size", "patch_size", "input_size", "num_frames")
    check_video_sizes(even=even, **{name: given[name] for name in sizes})
    model.arguments = given
    for name in ("num_classes", "in_channels", "learn_sigma", "gradient_checkpointing", *sizes[2:]):
        setattr(model, name, given[name])
    width = given["hidden_size"]
    model.x_embedder = PatchEmbed(model.in_channels, width, model.patch_size)
    model.pos_embed = position_parameter(sincos_2d(width, model.input_size // model.patch_size))
    model.temp_embed = position_parameter(sincos_1d(width, torch.arange(model.num_frames)))


def add_condition_embedders(model: Any) -> None:
    """Timestep and, of a model with classes, label embedding, whose sum every block is modulated by."""
    width, num_classes = model.arguments["hidden_size"], model.num_classes
    model.t_embedder = TimestepEmbedding(width)
    null_class = model.arguments["null_class"]
    model.y_embedder = LabelEmbedding(num_classes, width, null_class=null_class) if num_classes else None


def close_shell(
    model: Any, blocks: Iterable[nn.Module], orders: Sequence[str], build_final: Any = FinalLayer
) -> None:
    """Add the blocks, each with its scan order, and the layer that predicts the values of each patch."""
    model.blocks, model.orders = nn.ModuleList(blocks), tuple(orders)
    values = model.patch_size**2 * model.in_channels * (2 if model.learn_sigma else 1)
    model.final_layer = build_final(model.arguments["hidden_size"], values)


def predict_clip(
    model: Any,
    x: Tensor,
    timesteps: Tensor,
    class_labels: Tensor | None,
    image_labels: Tensor | None,
    use_image_num: int,
    *,
    positions_at_input: bool = False,
) -> Tensor:
    """The forward pass of a model whose blocks are modulated by timestep and label.

    x: (b, f + s, c, h, w), s = use_image_num.   timesteps, class_labels: (b,).   image_labels: (b, s).
    positions_at_input: see run_video_blocks.   Returns (b, f + s, 2c or c, h, w).
    """
    check_video_inputs(model, x, timesteps, class_labels, image_labels, use_image_num)
    tokens = embed_frames(model, x)
    c = embed_conditions(
        model.t_embedder, model.y_embedder, timesteps, class_labels, image_labels, use_image_num
    )
    tokens = run_video_blocks(
        model.blocks,
        model.orders,
        tokens,
        c,
        model.temp_embed,
        positions_at_input=positions_at_input,
        gradient_checkpointing=model.gradient_checkpointing,
    )
    return lay_out_frames(predict_tokens(model.final_layer, tokens, c), model.patch_size)


def check_video_inputs(
    model: Any,
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


def example_video_inputs(model: Any) -> tuple[Tensor, Tensor, Tensor | None]:
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
