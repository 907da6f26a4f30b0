"""Matten: local attention within and across frames, global bidirectional Mamba over the whole clip.

Gao et al., "Matten: Video Generation with Mamba-Attention", 2024. README.md beside this file maps the paper
to the code, and says what its tables force and what was chosen.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from genzoo.core.errors import UsageError, did_you_mean
from genzoo.families.matten.blocks import AdaptiveMambaBlock, PlainAttentionBlock, PlainMambaBlock
from genzoo.families.matten.count import matten_paper_count
from genzoo.families.matten.tokens import ConditionTokens, plain_final_layer, run_blocks_with_tokens
from genzoo.families.matten.variants import block_plan
from genzoo.nn.blocks import AttentionBlock
from genzoo.nn.modulation import FinalLayer
from genzoo.nn.video import add_frame_positions, embed_frames, lay_out_frames
from genzoo.nn.video_shell import (
    FIXED_TABLES,
    add_condition_embedders,
    check_video_inputs,
    close_shell,
    example_video_inputs,
    open_shell,
    predict_clip,
)


class Matten(nn.Module):
    """Diffusion model of clips with Mamba blocks, attention blocks or both.

    variant: 1 global Mamba; 2 spatial and temporal Mamba in turn; 3 spatial attention, temporal attention,
    global Mamba; 4 temporal attention, global Mamba.   depth: L of Table 3; variants.py turns it into blocks.
    scan: order of the global sequence, "spatial_first" or "temporal_first".
    conditioning: "adaln" (M-AdaN) or "tokens".   residual: of M-AdaN, "dit" or "as_printed".
    mixer, expand, d_state, d_conv, divide_output, scan_backend: see genzoo.nn.mamba.
    num_classes=0: unconditional. A fresh model returns exactly zero.
    """

    fixed_tables = FIXED_TABLES
    blocks: nn.ModuleList
    orders: tuple[str, ...]
    temp_embed: nn.Parameter
    condition_tokens: ConditionTokens
    final_layer: nn.Module
    patch_size: int
    gradient_checkpointing: bool

    def __init__(
        self,
        *,
        depth: int,
        hidden_size: int,
        num_heads: int,
        variant: int = 3,
        patch_size: int = 2,
        input_size: int = 32,
        num_frames: int = 16,
        in_channels: int = 4,
        num_classes: int = 0,
        conditioning: str = "adaln",
        residual: str = "dit",
        scan: str = "spatial_first",
        mlp_ratio: float = 4.0,
        learn_sigma: bool = True,
        null_class: bool = True,
        mixer: str = "v2",
        expand: int = 2,
        d_state: int = 16,
        d_conv: int = 4,
        divide_output: bool = False,
        scan_backend: str = "auto",
        gradient_checkpointing: bool = False,
    ) -> None:
        arguments = locals()
        super().__init__()
        _check_conditioning(conditioning, residual)
        open_shell(self, arguments)
        self.conditioning = conditioning
        if conditioning == "adaln":
            add_condition_embedders(self)
        else:
            self.condition_tokens = ConditionTokens(
                hidden_size, num_classes=num_classes, null_class=null_class
            )
        plan = block_plan(variant, depth, scan)
        attention_options: dict[str, Any] = {"num_heads": num_heads, "mlp_ratio": mlp_ratio}
        mixer_options: dict[str, Any] = {
            "mixer": mixer, "expand": expand, "d_state": d_state, "d_conv": d_conv,
            "divide_output": divide_output, "scan_backend": scan_backend,
        }  # fmt: skip
        if conditioning == "adaln":
            mixer_options["residual"] = residual
        attention, mamba = _BLOCKS[conditioning]
        blocks = (
            attention(hidden_size, **attention_options)
            if kind == "attention"
            else mamba(hidden_size, **mixer_options)
            for kind, _ in plan
        )
        build_final = FinalLayer if conditioning == "adaln" else plain_final_layer
        close_shell(self, blocks, [order for _, order in plan], build_final)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        class_labels: Tensor | None = None,
        *,
        image_labels: Tensor | None = None,
        use_image_num: int = 0,
    ) -> Tensor:
        """Predict the noise, and with learn_sigma the variance, of a diffused clip and of stills behind it.

        x: (b, f + s, c, h, w), s = use_image_num.   timesteps: (b,) original indices.   class_labels: (b,),
        image_labels: (b, s), num_classes = no label.   Returns (b, f + s, 2c or c, h, w).
        """
        if self.conditioning == "adaln":
            return predict_clip(
                self, x, timesteps, class_labels, image_labels, use_image_num, positions_at_input=True
            )
        check_video_inputs(self, x, timesteps, class_labels, image_labels, use_image_num)
        if use_image_num:
            raise UsageError(
                "conditional tokens describe one clip; stills have labels of their own",
                fix='set conditioning to "adaln", or use_image_num to 0',
            )
        tokens = run_blocks_with_tokens(
            self.blocks,
            self.orders,
            add_frame_positions(embed_frames(self, x), self.temp_embed),
            self.condition_tokens(timesteps, class_labels),
            gradient_checkpointing=self.gradient_checkpointing,
        )
        return lay_out_frames(self.final_layer(tokens), self.patch_size)

    def example_inputs(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Arguments of `forward` for one clip."""
        return example_video_inputs(self)

    def paper_count(self) -> dict[str, float]:
        """Parameters (M) and Gflops by the rule that meets Tables 2 and 3 best; a fit, see README."""
        return matten_paper_count(self)


_BLOCKS: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "adaln": (AttentionBlock, AdaptiveMambaBlock),
    "tokens": (PlainAttentionBlock, PlainMambaBlock),
}


def _check_conditioning(conditioning: str, residual: str) -> None:
    if conditioning not in _BLOCKS:
        hint = did_you_mean(conditioning, _BLOCKS) or f"choose one of {', '.join(_BLOCKS)}"
        raise UsageError(f"there is no conditioning {conditioning!r}; {hint}")
    if conditioning == "tokens" and residual != "dit":
        raise UsageError(
            f"residual {residual!r} is a form of M-AdaN, which conditional tokens do without",
            fix='leave residual out, or set conditioning to "adaln"',
        )
