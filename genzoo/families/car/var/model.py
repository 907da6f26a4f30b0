"""VAR: a transformer that predicts all tokens of a scale at once, from those of the coarser scales.

Tian et al., "Visual Autoregressive Modeling: Scalable Image Generation via Next-Scale Prediction", 2024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from genzoo.autoregression.scales import (
    block_causal_bias,
    plain_scales,
    scale_bounds,
    scale_of_token,
    scale_sizes,
)
from genzoo.core.errors import ShapeError, UsageError
from genzoo.core.sizes import Size
from genzoo.families.car.var.blocks import Block, HeadNorm, own_precision
from genzoo.families.car.var.positions import resized_positions, square_sides
from genzoo.families.car.vqvae.model import PATCH_NUMS
from genzoo.families.car.weights.init import base_std, reset_layers, shrink_residuals, undecayed_names
from genzoo.kernels.native.call import is_eager
from genzoo.nn.graphs import Graph, graph


class VAR(nn.Module):
    """Class-conditional next-scale prediction; keys are those of the released weights.

    patch_nums: sides of the token maps, or height and width of each.   in_channels, codebook_size: width and
    number of the VQVAE's codes.
    drop_path: of the last block; it grows linearly from 0.   attn_l2_norm, shared_adaln: see the blocks.
    init_adaln, init_adaln_gamma, init_head: what those parts' initial weights are multiplied by.
    The null class of guidance is row num_classes.
    """

    # not lvl_1L: it tells the scales where weights lie alone
    derived_buffers = ("attn_bias_for_masking",)
    uncast = ("head.weight", "head.bias", "head_nm.ada_lin.1.weight", "head_nm.ada_lin.1.bias")

    def __init__(
        self,
        *,
        depth: int,
        hidden_size: int,
        num_heads: int,
        patch_nums: Sequence[Size] = PATCH_NUMS,
        num_classes: int = 1000,
        in_channels: int = 32,
        codebook_size: int = 4096,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        attn_l2_norm: bool = True,
        shared_adaln: bool = False,
        init_adaln: float = 0.5,
        init_adaln_gamma: float = 1e-5,
        init_head: float = 0.02,
        gradient_checkpointing: bool = False,
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        if min(depth, hidden_size, num_heads, num_classes, in_channels, codebook_size) < 1:
            raise UsageError("depth, sizes and counts of the model are at least 1", why=f"given {arguments}")
        if not 0 <= drop_path < 1:
            raise UsageError(f"drop_path is a probability below 1, not {drop_path}")
        self.arguments: dict[str, Any] = arguments
        self.patch_nums, self.num_classes = plain_scales(patch_nums), num_classes
        self.depth, self.hidden_size = depth, hidden_size
        self.gradient_checkpointing = gradient_checkpointing
        self.sizes, self.bounds = scale_sizes(patch_nums), scale_bounds(patch_nums)
        self.length, self.first_length = self.bounds[-1][1], self.bounds[0][1]
        self.word_embed = nn.Linear(in_channels, hidden_size)
        self.class_emb = nn.Embedding(num_classes + 1, hidden_size)
        self.pos_start = nn.Parameter(torch.empty(1, self.first_length, hidden_size))
        self.pos_1LC = nn.Parameter(torch.empty(1, self.length, hidden_size))
        self.lvl_embed = nn.Embedding(len(self.sizes), hidden_size)
        self.lvl_1L: Tensor
        self.attn_bias_for_masking: Tensor
        self.register_buffer("lvl_1L", scale_of_token(patch_nums)[None])
        self.register_buffer("attn_bias_for_masking", block_causal_bias(patch_nums)[None, None])
        if shared_adaln:
            self.shared_ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 6 * hidden_size))
        self.blocks = nn.ModuleList(self.make_block(index) for index in range(depth))
        self.head_nm = HeadNorm(hidden_size)
        self.head = nn.Linear(hidden_size, codebook_size)
        self.reset_parameters()
        self.undecayed = undecayed_names(self)

    def make_block(self, index: int) -> Block:
        """A fresh block as that of the given depth."""
        options = self.arguments
        rate = options["drop_path"] * index / max(self.depth - 1, 1)
        return Block(
            self.hidden_size,
            options["num_heads"],
            mlp_ratio=options["mlp_ratio"],
            drop_path=rate,
            l2_norm=options["attn_l2_norm"],
            shared_adaln=options["shared_adaln"],
        )

    def reset_parameters(self) -> None:
        """As the released code starts: close to the identity, and to equal chances for all tokens."""
        std, options = base_std(self.hidden_size), self.arguments
        reset_layers(self, std)
        for table in (self.pos_start, self.pos_1LC):
            nn.init.trunc_normal_(table, std=std)
        with torch.no_grad():
            self.head.weight.mul_(options["init_head"])
            self.head_nm.ada_lin[-1].weight.mul_(options["init_adaln"])  # type: ignore[operator]
        shrink_residuals(
            self.blocks, self.depth, adaln=options["init_adaln"], adaln_gamma=options["init_adaln_gamma"]
        )

    def forward(
        self, class_labels: Tensor, teacher_input: Tensor | Sequence[Tensor], *, num_scales: int | None = None
    ) -> Tensor:
        """Logits of all tokens, given those of all coarser scales.

        class_labels: (b,), num_classes = no label.   teacher_input: (b, l - l_0, c), what is read from the
        second scale on, or one part per scale.   num_scales: stop after so many.   Returns (b, l, v) float32.
        """
        condition = self.condition(class_labels)
        tokens = self.place(self.contents(condition, teacher_input, num_scales))
        modulations = self.modulations(self.blocks, condition)
        bias = self.bias(tokens.shape[1])
        for block, modulation in zip(self.blocks, modulations, strict=True):
            tokens = self.run_block(block, tokens, modulation, bias)
        return self.logits(tokens, condition)

    def sharded_blocks(self) -> list[nn.Module]:
        """Parts whose weights are gathered one after another; blocks are modulated before their turn."""
        return [part for block in self.blocks for part in block.children()]

    def compiled_blocks(self) -> list[nn.Module]:
        """Parts that are one graph each."""
        return list(self.blocks)

    def condition(self, class_labels: Tensor) -> Tensor:
        """Class vectors (b, d). Raises ShapeError for a label that is none."""
        # only where looking is free: an accelerator would wait for its queue, and a graph holds no values
        if class_labels.device.type == "cpu" and is_eager(class_labels) and class_labels.numel():
            low, high = int(class_labels.min()), int(class_labels.max())
            if low < 0 or high > self.num_classes:
                raise ShapeError(
                    f"class labels span [{low}, {high}] but the model has {self.num_classes} classes",
                    fix=f"use labels from 0 to {self.num_classes - 1}; {self.num_classes} is no label",
                )
        condition: Tensor = self.class_emb(class_labels)
        return condition

    def contents(
        self, condition: Tensor, teacher_input: Tensor | Sequence[Tensor], num_scales: int | None = None
    ) -> Tensor:
        """Embedded inputs without their places: start tokens, then what is read at the scales after.

        Returns (b, l, d), l ending with scale number num_scales.
        """
        count = len(self.sizes) if num_scales is None else num_scales
        if not 1 <= count <= len(self.sizes):
            raise ShapeError(f"num_scales is {count} but the model has {len(self.sizes)} scales")
        end = self.bounds[count - 1][1]
        read = teacher_input if isinstance(teacher_input, Tensor) else _joined(teacher_input, condition)
        width = self.word_embed.in_features
        if end > self.first_length:
            expected = (len(condition), width)
            if (
                read.ndim != 3
                or (len(read), read.shape[2]) != expected
                or read.shape[1] < end - self.first_length
            ):
                raise ShapeError(
                    f"teacher_input is {tuple(read.shape)} for {len(condition)} labels; it should be "
                    f"({len(condition)}, {self.length - self.first_length}, {width})"
                )
        start = self.start_tokens(condition)
        if end == self.first_length:
            return start
        words = self.word_embed(read[:, : end - self.first_length].to(self.word_embed.weight.dtype))
        return torch.cat([start.to(words.dtype), words], dim=1)

    def start_tokens(self, condition: Tensor) -> Tensor:
        """(b, l_0, d): the class at every place of the first map."""
        return condition[:, None] + self.pos_start

    def place(self, tokens: Tensor, scale: int | None = None) -> Tensor:
        """Add place and scale.   tokens: (b, l, d), from the start of the sequence, or those of one scale."""
        begin = 0 if scale is None else self.bounds[scale][0]
        part = slice(begin, begin + tokens.shape[1])
        return tokens + self.lvl_embed(self.lvl_1L[:, part]) + self.pos_1LC[:, part]

    def modulations(self, blocks: Sequence[nn.Module] | nn.ModuleList, condition: Tensor) -> list[Any]:
        """Each block's modulation, which serves all scales."""
        if self.arguments["shared_adaln"]:
            condition = self.shared_ada_lin(condition).view(-1, 1, 6, self.hidden_size)
        return [block.modulation(condition) for block in blocks]  # type: ignore[operator]

    def bias(self, length: int) -> Tensor:
        """What to add to the attention scores of the first `length` tokens: (1, 1, l, l)."""
        return self.attn_bias_for_masking[:, :, :length, :length]

    def run_block(self, block: nn.Module, tokens: Tensor, modulation: Any, bias: Tensor) -> Tensor:
        """One block over the whole sequence, storing less when gradient_checkpointing is set."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, tokens, modulation, bias=bias, use_reentrant=False)
        return block(tokens, modulation, bias=bias)

    def logits(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """(b, l, d) -> (b, l, v) float32, computed in the weights' own precision even under autocast."""
        with own_precision(tokens):
            dtype = self.head.weight.dtype
            logits: Tensor = self.head(self.head_nm(tokens.to(dtype), condition.to(dtype)))
        return logits.float()

    def refitted(self, name: str, weights: Mapping[str, Tensor]) -> Tensor | None:
        """Positions of a VAR on other maps, where these are squares and as many; see `resized_positions`."""
        sides = square_sides(weights.get("lvl_1L")) if name == "pos_1LC" else None
        if sides is None or len(sides) != len(self.sizes):
            return None
        if sides[0][0] * sides[0][1] != self.first_length:
            (height, width), side = self.sizes[0], sides[0][0]
            raise ShapeError(
                f"the first map is {height} x {width}, but the base starts from {side} x {side}",
                fix=f"take patch_nums that begin with {side}",
            )
        return resized_positions(weights[name], sides, self.sizes)

    def graphs(self) -> dict[str, Graph]:
        """Logits of all tokens, given those of the coarser scales."""
        labels, teacher_input = self.example_inputs()
        return {"model": graph(self, "logits", class_labels=labels, teacher_input=teacher_input)}

    def example_inputs(self) -> tuple[Tensor, Tensor]:
        """Arguments of `forward` for one sample."""
        device, width = self.pos_1LC.device, self.word_embed.in_features
        labels = torch.zeros(1, dtype=torch.long, device=device)
        return labels, torch.zeros(1, self.length - self.first_length, width, device=device)


def scale_contents(model: VAR, condition: Tensor, read: Tensor | None) -> Tensor:
    """Embedded input of one scale without its places, (b, l_k, d).

    read: (b', c, h_k, w_k), and then b' rows are returned: with guidance all halves read the same.
    """
    if read is None:
        return model.start_tokens(condition)
    words: Tensor = model.word_embed(read.flatten(2).transpose(1, 2).to(model.word_embed.weight.dtype))
    return words


def repeat_to(x: Tensor, count: int) -> Tensor:
    """The batch over and over until there are `count` rows."""
    return x if len(x) == count else x.repeat(count // len(x), *[1] * (x.ndim - 1))


def _joined(parts: Sequence[Tensor], condition: Tensor) -> Tensor:
    return torch.cat(list(parts), dim=1) if parts else condition.new_zeros(len(condition), 0, 0)
