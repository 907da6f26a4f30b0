"""DiM for clips (section 3.5 of the paper): its blocks along space and time in turn, or over the clip.

The paper says that the bidirectional scans run "across the spatial dimensions of each frame" and "across the
temporal sequence of frames", with Latte's settings; README.md beside this file says what was chosen.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from genzoo.core.errors import UsageError, did_you_mean
from genzoo.nn.blocks import MambaBlock
from genzoo.nn.count import thop_count
from genzoo.nn.video_shell import (
    FIXED_TABLES,
    add_condition_embedders,
    close_shell,
    example_video_inputs,
    open_shell,
    predict_clip,
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

    fixed_tables = FIXED_TABLES

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
        arguments = locals()
        super().__init__()
        if scan not in SCANS:
            hint = did_you_mean(scan, SCANS) or f"choose one of {', '.join(SCANS)}"
            raise UsageError(f"there is no scan {scan!r}; {hint}")
        open_shell(self, arguments, even="depth" if scan == "alternating" else None)
        add_condition_embedders(self)
        mixer_options: dict[str, Any] = {
            "mixer": mixer, "expand": expand, "d_state": d_state, "d_conv": d_conv,
            "divide_output": divide_output, "scan_backend": scan_backend,
        }  # fmt: skip
        blocks = (MambaBlock(hidden_size, mlp_ratio=mlp_ratio, **mixer_options) for _ in range(depth))
        close_shell(self, blocks, [SCANS[scan][index % 2] for index in range(depth)])

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
        return predict_clip(self, x, timesteps, class_labels, image_labels, use_image_num)

    def example_inputs(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Arguments of `forward` for one clip."""
        return example_video_inputs(self)

    def paper_count(self) -> dict[str, float]:
        """Counted like DiM's images, thop of three samples; the paper prints no count of clips."""
        return thop_count(self, batch=3)
