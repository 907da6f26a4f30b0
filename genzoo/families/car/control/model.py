"""CAR: a control transformer beside a frozen VAR, which it steers scale by scale.

Yao et al., "CAR: Controllable Autoregressive Modeling for Visual Generation", 2024.
README.md beside this file maps the paper to the code and says where the released code differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from genzoo.autoregression.scales import split_scales
from genzoo.core.errors import ShapeError, UsageError, did_you_mean
from genzoo.core.sizes import Size
from genzoo.families.car.control.convolutions import convolve_maps, read_together
from genzoo.families.car.control.injection import (
    CONTROL_CHANNELS,
    ControlEncoder,
    ConvolutionBlock,
    CrossNorm,
    concat_norm_linear,
)
from genzoo.families.car.var.blocks import NORM_EPS
from genzoo.families.car.var.model import VAR, repeat_to
from genzoo.families.car.vqvae.model import PATCH_NUMS
from genzoo.families.car.weights.init import base_std, reset_convolutions, reset_layers, undecayed_names

FUSIONS = ("conv", "vqvae_encoder")
CONTROL_NETWORKS = ("transformer", "conv")
INJECTIONS = ("concat_ln_linear", "zero_conv_add", "cross_norm_add")
CONTROL_INITS = ("released", "fan_in")


class CAR(nn.Module):
    """A VAR with a control branch; the branch's keys are those of the released weights.

    var_weights: file or run folder of the base; without it the base is random.
    freeze_base: train the branch only; a checkpoint then holds the branch, and a hash of the base.
    init_from_base: start the control transformer as the base's first half (paper), or at random (code).
    control_init: deviation of the fusion's convolutions: "released" 0.02, under which signals fade in narrow
    ones, or "fan_in".
    control_channels: of the control encoder; a map of side p has a control of side p * 2^(their number - 1).
    control_checkpointing: encode the control again in the backward pass, which stores less.
    fusion, control_network, injection: the alternatives of the paper's Table 3.   The rest: as in VAR.
    """

    derived_buffers = ("base.lvl_1L",)
    starts_from = ("var_weights",)

    def __init__(
        self,
        *,
        depth: int,
        hidden_size: int,
        num_heads: int,
        var_weights: str | None = None,
        freeze_base: bool = True,
        init_from_base: bool = True,
        fusion: str = "conv",
        control_network: str = "transformer",
        injection: str = "concat_ln_linear",
        control_init: str = "released",
        control_channels: Sequence[int] = CONTROL_CHANNELS,
        patch_nums: Sequence[Size] = PATCH_NUMS,
        num_classes: int = 1000,
        in_channels: int = 32,
        codebook_size: int = 4096,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        attn_l2_norm: bool = True,
        shared_adaln: bool = False,
        gradient_checkpointing: bool = False,
        control_checkpointing: bool = False,
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        if depth % 2 or depth < 2:
            raise UsageError(
                f"depth is {depth}, but half of the blocks take in the control", fix="use an even depth"
            )
        _check_choice("fusion", fusion, FUSIONS)
        _check_choice("control_network", control_network, CONTROL_NETWORKS)
        _check_choice("injection", injection, INJECTIONS)
        _check_choice("control_init", control_init, CONTROL_INITS)
        self.arguments: dict[str, Any] = arguments
        self.base = VAR(
            depth=depth, hidden_size=hidden_size, num_heads=num_heads, patch_nums=patch_nums,
            num_classes=num_classes, in_channels=in_channels, codebook_size=codebook_size,
            mlp_ratio=mlp_ratio, drop_path=drop_path, attn_l2_norm=attn_l2_norm, shared_adaln=shared_adaln,
            gradient_checkpointing=gradient_checkpointing,
        )  # fmt: skip
        self.patch_nums, self.num_classes = self.base.patch_nums, num_classes
        self.fusion, self.num_injections = fusion, depth // 2
        self.control_factor = 2 ** (len(control_channels) - 1)
        self._add_branch()
        self.reset_parameters()
        if var_weights is not None:
            from genzoo.families.car.weights.loading import load_var_weights

            self.base.load_state_dict(load_var_weights(var_weights, self.base))
        if init_from_base and control_network == "transformer":
            self.car_blocks.load_state_dict(self.base.blocks[: self.num_injections].state_dict())
        if freeze_base:
            self.base.requires_grad_(False)
        self.undecayed = undecayed_names(self)

    def _add_branch(self) -> None:
        options, width = self.arguments, self.base.hidden_size
        if self.fusion == "conv":
            self.car_control_convs = ControlEncoder(width, options["control_channels"])
        else:
            self.car_control_proj = nn.Linear(options["in_channels"], width)
        self.car_var_conv = nn.Conv2d(width, width, 3, padding=1)
        count = self.num_injections
        if options["control_network"] == "transformer":
            self.car_blocks = nn.ModuleList(self.base.make_block(index) for index in range(count))
        else:
            self.car_conv_blocks = nn.ModuleList(ConvolutionBlock(width) for _ in range(count))
        if options["injection"] == "concat_ln_linear":
            self.car_skip_norm = nn.ModuleList(nn.LayerNorm(2 * width, eps=NORM_EPS) for _ in range(count))
            self.car_skip_linear = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(count))
        elif options["injection"] == "zero_conv_add":
            self.car_zero_linear = nn.ModuleList(nn.Linear(width, width) for _ in range(count))
        else:
            self.car_cross_norm = nn.ModuleList(CrossNorm() for _ in range(count))

    def reset_parameters(self) -> None:
        """The branch at random, as the released code starts it: nothing is scaled down."""
        for name, module in self.named_children():
            if name != "base":
                reset_layers(module, base_std(self.base.hidden_size))
                if self.arguments["control_init"] == "fan_in" and name in (
                    "car_control_convs",
                    "car_var_conv",
                ):
                    reset_convolutions(module)
        if self.arguments["injection"] == "zero_conv_add":
            for parameter in self.car_zero_linear.parameters():
                nn.init.zeros_(parameter)

    def forward(
        self,
        class_labels: Tensor,
        teacher_input: Tensor | Sequence[Tensor],
        control: Sequence[Tensor],
        *,
        num_scales: int | None = None,
    ) -> Tensor:
        """Logits of all tokens, given those of all coarser scales and the control.

        class_labels, teacher_input: as in VAR.   control: one (b, 3, f h_k, f w_k) in [-1, 1] per scale, f
        the control_factor; for fusion "vqvae_encoder" one map (b, c, h_k, w_k) of codes.   num_scales: stop
        after so many, of which control then has no more.   Returns (b, l, v) float32.
        """
        base = self.base
        condition = base.condition(class_labels)
        contents = base.contents(condition, teacher_input, num_scales)
        bias, tokens = base.bias(contents.shape[1]), base.place(contents)
        maps = self.fused(contents, self.encode_control(control, num_scales))
        outputs = self._control_outputs(base.place(maps), condition, bias, num_scales)
        modulations = base.modulations(base.blocks, condition)
        for index, (block, modulation) in enumerate(zip(base.blocks, modulations, strict=True)):
            if index >= self.num_injections:
                tokens = self.inject(tokens, outputs.pop(), index - self.num_injections)
            tokens = base.run_block(block, tokens, modulation, bias)
        return base.logits(tokens, condition)

    def sharded_blocks(self) -> list[nn.Module]:
        """Parts whose weights are gathered one after another: those of the base, then of the branch."""
        own = self.car_blocks if self.arguments["control_network"] == "transformer" else ()
        return [*self.base.sharded_blocks(), *(part for block in own for part in block.children())]

    def compiled_blocks(self) -> list[nn.Module]:
        """Parts that are one graph each: those of the base, then of the branch."""
        own = self.car_blocks if self.arguments["control_network"] == "transformer" else self.car_conv_blocks
        return [*self.base.compiled_blocks(), *own]

    def encode_control(self, control: Sequence[Tensor], num_scales: int | None = None) -> list[Tensor]:
        """One feature per token from the control of every scale, or of the first: (b, d, h_k, w_k) each.

        They depend on nothing else, so one result serves any number of samples and labels.
        """
        self._check_control(control, num_scales)
        if self.fusion == "conv":
            dtype = self.car_var_conv.weight.dtype
            pictures = [picture.to(dtype) for picture in control]
            if read_together(pictures, self.car_control_convs.conv_in):
                return self._stored_or_not(self.car_control_convs.all_scales, pictures)
            return [self._stored_or_not(self.car_control_convs, picture) for picture in pictures]
        dtype = self.car_control_proj.weight.dtype
        return [self.car_control_proj(codes.to(dtype).movedim(1, -1)).movedim(-1, 1) for codes in control]

    def _stored_or_not(self, encode: Callable[[Any], Any], pictures: Any) -> Any:
        if self.arguments["control_checkpointing"] and torch.is_grad_enabled():
            return checkpoint(encode, pictures, use_reentrant=False)
        return encode(pictures)

    def fuse(self, contents: Tensor, features: Tensor) -> Tensor:
        """What the branch reads at one scale.   contents: (b, l_k, d).   features: (b, d, h_k, w_k)."""
        size = features.shape[-2:]
        as_map = rearrange(contents, "b (h w) d -> b d h w", h=size[0], w=size[1])
        fused = self.car_var_conv(as_map) + repeat_to(features, len(contents))
        return rearrange(fused, "b d h w -> b (h w) d")

    def fused(self, contents: Tensor, features: Sequence[Tensor]) -> Tensor:
        """What the control branch reads, all scales one after another: (b, l, d)."""
        parts = split_scales(contents, self.patch_nums[: len(features)])
        if not read_together(parts, self.car_var_conv):
            pairs = zip(parts, features, strict=True)
            return torch.cat([self.fuse(part, feature) for part, feature in pairs], dim=1)
        sizes = zip(parts, self.base.sizes, strict=False)
        maps = [rearrange(part, "b (h w) d -> b d h w", h=size[0]) for part, size in sizes]
        pairs = zip(convolve_maps(maps, self.car_var_conv), features, strict=True)
        fused = [map_ + repeat_to(feature, len(map_)) for map_, feature in pairs]
        return torch.cat([rearrange(map_, "b d h w -> b (h w) d") for map_ in fused], dim=1)

    def inject(self, tokens: Tensor, output: Tensor, index: int) -> Tensor:
        """Let one output of the control branch into the base, before block half + index.   (b, l, d)."""
        kind = self.arguments["injection"]
        if kind == "concat_ln_linear":
            norm = self.car_skip_norm[index]
            assert isinstance(norm, nn.LayerNorm)
            return concat_norm_linear(tokens, output, norm, self.car_skip_linear[index])
        if kind == "zero_conv_add":
            return tokens + self.car_zero_linear[index](output)
        return self.car_cross_norm[index](tokens, output)

    def convolved(self, sequence: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Outputs of the convolutional branch, (b, l, d) per block; the maps of `sizes` never mix."""
        parts = sequence.split([height * width for height, width in sizes], dim=1)
        maps = [rearrange(p, "b (h w) d -> b d h w", h=s[0]) for p, s in zip(parts, sizes, strict=True)]
        outputs = []
        for block in self.car_conv_blocks:
            maps = [block(map_) for map_ in maps]
            outputs.append(torch.cat([rearrange(m, "b d h w -> b (h w) d") for m in maps], dim=1))
        return outputs

    def control_shapes(self) -> list[tuple[int, int, int]]:
        """Channels, height and width of the control of every scale."""
        conv = self.fusion == "conv"
        channels, factor = (3, self.control_factor) if conv else (self.arguments["in_channels"], 1)
        return [(channels, height * factor, width * factor) for height, width in self.base.sizes]

    def example_inputs(self) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Arguments of `forward` for one sample."""
        labels, teacher_input = self.base.example_inputs()
        control = [torch.zeros(1, *shape, device=labels.device) for shape in self.control_shapes()]
        return labels, teacher_input, control

    def _control_outputs(
        self, tokens: Tensor, condition: Tensor, bias: Tensor, num_scales: int | None
    ) -> list[Tensor]:
        """What each layer of the control branch says, (b, l, d) each, shallowest first."""
        if self.arguments["control_network"] == "conv":
            return self.convolved(tokens, self.base.sizes[:num_scales])
        outputs = []
        modulations = self.base.modulations(self.car_blocks, condition)
        for block, modulation in zip(self.car_blocks, modulations, strict=True):
            tokens = self.base.run_block(block, tokens, modulation, bias)
            outputs.append(tokens)
        return outputs

    def _check_control(self, control: Sequence[Tensor], num_scales: int | None) -> None:
        expected = self.control_shapes()[:num_scales]
        if len(control) != len(expected):
            raise ShapeError(
                f"control has {len(control)} scales but patch_nums has {len(expected)}",
                fix="pass one map per scale",
            )
        for scale, (picture, shape) in enumerate(zip(control, expected, strict=True)):
            if tuple(picture.shape[1:]) != shape:
                raise ShapeError(
                    f"the control of scale {scale} is {tuple(picture.shape[1:])} instead of {shape}",
                    fix="resize it to that size, with as many channels",
                )


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        hint = did_you_mean(value, choices) or f"choose one of {', '.join(choices)}"
        raise UsageError(f"there is no {name} {value!r}; {hint}")
