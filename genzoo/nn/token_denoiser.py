"""The one shell around the blocks of every denoiser of patches: images and clips, attention and Mamba.

    latents -> patches + positions -> blocks, modulated by timestep and label -> values of patches -> latents

A family brings its blocks, for clips with the order in which each scans; everything else is here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from genzoo.core.errors import ShapeError, UsageError
from genzoo.core.sizes import Size, sides
from genzoo.nn.blocks import run_blocks
from genzoo.nn.embeddings import (
    LabelEmbedding,
    TimestepEmbedding,
    position_parameter,
    sincos_1d,
    sincos_2d,
)
from genzoo.nn.graphs import Graph, graph
from genzoo.nn.modulation import FinalLayer
from genzoo.nn.patch import PatchEmbed, unpatchify
from genzoo.nn.routing import Route, gathered, scattered
from genzoo.nn.video import embed_conditions, predict_tokens, run_video_blocks

SIZES = ("depth", "hidden_size", "patch_size", "num_frames")


class TokenDenoiser(nn.Module):
    """Base of the models: a constructor is `super().__init__(locals())`, `add_conditions`, `add_blocks`.

    The arguments of every such constructor: depth, hidden_size, patch_size, input_size (side of the latents,
    or height and width), in_channels, num_classes (0: unconditional), learn_sigma, null_class (False leaves
    out the row for dropped labels), gradient_checkpointing, and for clips num_frames.
    """

    positions_at_input = False
    """Whether the positions of frames are added before the first block, or before the first across frames."""

    replays_forward = True

    arguments: dict[str, Any]
    num_classes: int
    in_channels: int
    input_size: Size
    patch_size: int
    num_frames: int  # of clips only
    learn_sigma: bool
    gradient_checkpointing: bool
    blocks: nn.ModuleList
    orders: tuple[str, ...]  # of clips only

    def __init__(self, arguments: Mapping[str, Any], *, even: str | None = None) -> None:
        """Patches and positions.   arguments: `locals()` of the constructor.   even: one of them, not odd."""
        super().__init__()
        given = {name: value for name, value in arguments.items() if name not in ("self", "__class__")}
        self.arguments, self.in_clips = given, "num_frames" in given
        self.latent_size = sides(given["input_size"], "input_size")
        _check_sizes(given, self.latent_size, even)
        kept = ("num_classes", "in_channels", "learn_sigma", "input_size", "patch_size")
        for name in (*kept, "gradient_checkpointing", *(["num_frames"] if self.in_clips else [])):
            setattr(self, name, given[name])
        height, width = self.latent_size
        self.grid = height // self.patch_size, width // self.patch_size
        hidden_size = given["hidden_size"]
        self.x_embedder = PatchEmbed(self.in_channels, hidden_size, self.patch_size)
        self.pos_embed = position_parameter(sincos_2d(hidden_size, *self.grid))
        self.fixed_tables: tuple[str, ...] = ("pos_embed",)
        if self.in_clips:
            self.temp_embed = position_parameter(sincos_1d(hidden_size, torch.arange(self.num_frames)))
            self.fixed_tables = ("pos_embed", "temp_embed")

    def add_conditions(self) -> None:
        """Timestep and, of a model with classes, label embedding, whose sum every block is modulated by."""
        width, null_class = self.arguments["hidden_size"], self.arguments["null_class"]
        self.t_embedder = TimestepEmbedding(width)
        self.y_embedder = (
            LabelEmbedding(self.num_classes, width, null_class=null_class) if self.num_classes else None
        )

    def add_blocks(
        self, blocks: Iterable[nn.Module], orders: Sequence[str] = (), build_final: Any = FinalLayer
    ) -> None:
        """The blocks, for clips each with its scan order, and the layer that predicts each patch's values."""
        self.blocks = nn.ModuleList(blocks)
        if self.in_clips:
            self.orders = tuple(orders)
        values = self.patch_size**2 * self.in_channels * (2 if self.learn_sigma else 1)
        self.final_layer = build_final(self.arguments["hidden_size"], values)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        class_labels: Tensor | None = None,
        *,
        image_labels: Tensor | None = None,
        use_image_num: int = 0,
        route: Route | None = None,
    ) -> Tensor:
        """Predict the noise, and with learn_sigma the variance, of diffused latents.

        x: (b, c, h, w), or a clip with s = use_image_num stills behind it, (b, f + s, c, h, w).
        timesteps: (b,) original indices.   class_labels: (b,), image_labels: (b, s), num_classes = no label.
        route: of pictures, which tokens the middle blocks see, in training.
        Returns the shape of x, with learn_sigma with 2c channels.
        """
        self._check_inputs(x, timesteps, class_labels, image_labels, use_image_num)
        height, width = self.grid
        if route is not None:
            c = embed_conditions(self.t_embedder, self.y_embedder, timesteps, class_labels, None, 0)
            tokens = self.final_layer(self.mix_tokens(self._embed(x), c.video, route), c.video)
            return unpatchify(tokens, self.patch_size, height=height, width=width)
        tokens = self.predict_tokens(self._embed(x), timesteps, class_labels, image_labels, use_image_num)
        if not self.in_clips:
            return unpatchify(tokens, self.patch_size, height=height, width=width)
        frames = unpatchify(tokens.flatten(0, 1), self.patch_size, height=height, width=width)
        clip: Tensor = rearrange(frames, "(b f) c h w -> b f c h w", f=tokens.shape[1])
        return clip

    def predict_tokens(
        self,
        tokens: Tensor,
        timesteps: Tensor,
        class_labels: Tensor | None,
        image_labels: Tensor | None,
        use_image_num: int,
    ) -> Tensor:
        """Blocks and final layer.   tokens: (b, n, d), or (b, f + s, n, d).   Returns p*p*c values each."""
        labels = class_labels, image_labels, use_image_num
        c = embed_conditions(self.t_embedder, self.y_embedder, timesteps, *labels)
        if not self.in_clips:
            predicted: Tensor = self.final_layer(self.mix_tokens(tokens, c.video), c.video)
            return predicted
        tokens = run_video_blocks(
            self.blocks,
            self.orders,
            tokens,
            c,
            self.temp_embed,
            positions_at_input=self.positions_at_input,
            gradient_checkpointing=self.gradient_checkpointing,
        )
        return predict_tokens(self.final_layer, tokens, c)

    def mix_tokens(self, tokens: Tensor, c: Tensor, route: Route | None = None) -> Tensor:
        """The blocks of a model of images, in turn.   tokens: (b, f + n, d), f in front.   c: (b, d)."""
        run = partial(run_blocks, c=c, gradient_checkpointing=self.gradient_checkpointing)
        if route is None:
            return run(self.blocks, tokens, **self.block_options())
        blocks, start, end = list(self.blocks), route.start, route.end + 1
        num_front = tokens.shape[1] - math.prod(self.grid)
        tokens = run(blocks[:start], tokens, **self.block_options())
        routed = gathered(tokens, route.kept, num_front=num_front)
        routed = run(blocks[start:end], routed, **self.block_options(route.kept))
        tokens = scattered(tokens, route.kept, routed, num_front=num_front)
        return run(blocks[end:], tokens, **self.block_options())

    def block_options(self, kept: Tensor | None = None) -> dict[str, Any]:
        """What every block of a model of images is given besides.   kept: (b, k), places of the tokens."""
        return {}

    def routed_sizes(self) -> tuple[int, int]:
        """Tokens of a picture, and blocks. Raises UsageError for a model of clips."""
        if self.in_clips:
            raise UsageError(
                f"the tokens of {type(self).__name__} cannot be routed",
                why="a clip's blocks scan frames and places in turn",
                fix="leave task.routing out",
            )
        return math.prod(self.grid), len(self.blocks)

    def sharded_blocks(self) -> list[nn.Module]:
        """Parts whose weights are gathered one after another."""
        return list(self.blocks)

    def compiled_blocks(self) -> list[nn.Module]:
        """Parts that are one graph each."""
        return list(self.blocks)

    def example_inputs(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Arguments of `forward` for one sample, all zeros, beside the model's weights."""
        x = self.pos_embed.new_zeros(1, *self._sample_shape())
        index = x.new_zeros(1).long()
        return x, index, index if self.num_classes else None

    def graphs(self) -> dict[str, Graph]:
        """The network itself, for timesteps between whole ones too."""
        x, timesteps, labels = self.example_inputs()
        return {"model": graph(self, "predicted", x=x, timesteps=timesteps.float(), class_labels=labels)}

    def _sample_shape(self, stills: int = 0) -> tuple[int, ...]:
        frames = (self.num_frames + stills,) if self.in_clips else ()
        return (*frames, self.in_channels, *self.latent_size)

    def _embed(self, x: Tensor) -> Tensor:
        """Patches with their positions, (b, n, d); of every frame of clips, (b, f, n, d)."""
        if not self.in_clips:
            tokens: Tensor = self.x_embedder(x) + self.pos_embed
            return tokens
        tokens = self.x_embedder(rearrange(x, "b f c h w -> (b f) c h w")) + self.pos_embed
        frames: Tensor = rearrange(tokens, "(b f) n d -> b f n d", f=x.shape[1])
        return frames

    def _check_inputs(
        self,
        x: Tensor,
        timesteps: Tensor,
        class_labels: Tensor | None,
        image_labels: Tensor | None,
        use_image_num: int,
    ) -> None:
        """Raise an error that names the shapes when the inputs are not those of the model."""
        if use_image_num and not self.in_clips:
            raise UsageError(f"the model takes images, but use_image_num={use_image_num} stills were given")
        expected = self._sample_shape(use_image_num)
        if x.ndim != len(expected) + 1 or tuple(x.shape[1:]) != expected:
            stills = f" with use_image_num={use_image_num}" if use_image_num else ""
            axes = "frames, channels, height, width" if self.in_clips else "channels, height, width"
            raise ShapeError(
                f"the model takes (b, {', '.join(map(str, expected))}){stills} but x is {tuple(x.shape)}",
                fix=f"x is (b, {axes})",
            )
        if timesteps.shape != x.shape[:1]:
            raise ShapeError(
                f"x has {len(x)} samples but timesteps has shape {tuple(timesteps.shape)}; pass one for each"
            )
        _check_labels("class_labels", class_labels, (len(x),), self.num_classes > 0, self.num_classes)
        wanted = self.num_classes > 0 and use_image_num > 0
        _check_labels("image_labels", image_labels, (len(x), use_image_num), wanted, self.num_classes)


def _check_labels(
    name: str, labels: Tensor | None, shape: tuple[int, ...], expected: bool, num_classes: int
) -> None:
    if (labels is not None) != expected:
        seen = f"no {name} were given" if labels is None else f"{name} were given"
        stills = " and no stills" if name == "image_labels" and labels is not None and num_classes else ""
        raise UsageError(f"the model has num_classes={num_classes}{stills} but {seen}")
    if labels is not None and tuple(labels.shape) != shape:
        raise ShapeError(f"{name} has shape {tuple(labels.shape)} but x needs {shape}")


def _check_sizes(given: Mapping[str, Any], latent_size: tuple[int, int], even: str | None) -> None:
    """Raise an error for sizes below one, an input_size that makes no whole patches, or an odd `even`."""
    sizes = {name: given[name] for name in SIZES if name in given}
    wrong = [f"{name}={value}" for name, value in sizes.items() if value < 1]
    if wrong:
        raise ShapeError(f"{', '.join(wrong)} must be at least 1")
    if any(side % given["patch_size"] for side in latent_size):
        raise ShapeError(
            f"input_size {given['input_size']} is no multiple of patch_size {given['patch_size']}",
            fix="choose an input_size (the height of the latents) that can be cut into whole patches",
        )
    if even is not None and given[even] % 2:
        raise ShapeError(f"{even} is {given[even]} but these blocks come in pairs", fix=f"use an even {even}")
