"""DiM for clips (section 3.5 of the paper): its blocks along space and time in turn, or over the clip.

The paper says that the bidirectional scans run "across the spatial dimensions of each frame" and "across the
temporal sequence of frames", with Latte's settings; README.md beside this file says what was chosen.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.errors import UsageError, did_you_mean
from genzoo.nn.blocks import MambaBlock
from genzoo.nn.count import thop_count
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
    check_video_inputs,
    check_video_sizes,
    embed_conditions,
    embed_frames,
    example_video_inputs,
    lay_out_frames,
    predict_tokens,
    run_video_blocks,
)

SCANS = {
    "alternating": ("spatial", "temporal"),
    "global": ("global_spatial_first", "global_spatial_first"),
}


class DiMVideo(nn.Module):
    """Diffusion model of clips with bidirectional Mamba blocks, for video alone or together with stills.

    scan: "alternating" (even blocks within frames, odd blocks across them) or "global" (every block over the
    whole clip, frame by frame).   num_classes=0: unconditional.
    mixer, expand, d_state, d_conv, divide_output, scan_backend: see genzoo.nn.mamba.
    A fresh model returns exactly zero.
    """

    fixed_tables = ("pos_embed", "temp_embed")

    def __init__(
        self,
        *,
        depth: int,
        hidden_size: int,
        patch_size: int = 2,
        input_size: int = 32,
        num_frames: int = 16,
        in_channels: int = 4,
        num_classes: int = 0,
        scan: str = "alternating",
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
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        if scan not in SCANS:
            hint = did_you_mean(scan, SCANS) or f"choose one of {', '.join(SCANS)}"
            raise UsageError(f"there is no scan {scan!r}; {hint}")
        check_video_sizes(
            depth=depth, even="depth" if scan == "alternating" else None, hidden_size=hidden_size,
            patch_size=patch_size, input_size=input_size, num_frames=num_frames,
        )  # fmt: skip
        self.arguments: dict[str, Any] = arguments
        self.num_classes, self.in_channels, self.learn_sigma = num_classes, in_channels, learn_sigma
        self.input_size, self.patch_size, self.num_frames = input_size, patch_size, num_frames
        self.gradient_checkpointing = gradient_checkpointing
        out_channels = 2 * in_channels if learn_sigma else in_channels
        self.x_embedder = PatchEmbed(in_channels, hidden_size, patch_size)
        self.t_embedder = TimestepEmbedding(hidden_size)
        self.y_embedder = (
            LabelEmbedding(num_classes, hidden_size, null_class=null_class) if num_classes else None
        )
        self.pos_embed = position_parameter(sincos_2d(hidden_size, input_size // patch_size))
        self.temp_embed = position_parameter(sincos_1d(hidden_size, torch.arange(num_frames)))
        mixer_options = {
            "mixer": mixer, "expand": expand, "d_state": d_state, "d_conv": d_conv,
            "divide_output": divide_output, "scan_backend": scan_backend,
        }  # fmt: skip
        self.blocks = nn.ModuleList(
            MambaBlock(hidden_size, mlp_ratio=mlp_ratio, **mixer_options) for _ in range(depth)
        )
        self.orders = tuple(SCANS[scan][index % 2] for index in range(depth))
        self.final_layer = FinalLayer(hidden_size, patch_size**2 * out_channels)

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
        check_video_inputs(self, x, timesteps, class_labels, image_labels, use_image_num)
        c = embed_conditions(
            self.t_embedder, self.y_embedder, timesteps, class_labels, image_labels, use_image_num
        )
        tokens = run_video_blocks(
            self.blocks,
            self.orders,
            embed_frames(self, x),
            c,
            self.temp_embed,
            gradient_checkpointing=self.gradient_checkpointing,
        )
        return lay_out_frames(predict_tokens(self.final_layer, tokens, c), self.patch_size)

    def example_inputs(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Arguments of `forward` for one clip."""
        return example_video_inputs(self)

    def paper_count(self) -> dict[str, float]:
        """Counted like DiM's images, thop of three samples; the paper prints no count of clips."""
        return thop_count(self, batch=3)
