"""DiM for clips (section 3.5 of the paper): its blocks along space and time in turn, or over the clip.

The paper says that the bidirectional scans run "across the spatial dimensions of each frame" and "across the
temporal sequence of frames", with Latte's settings; README.md beside this file says what was chosen.
"""

from __future__ import annotations

from collections.abc import Sequence

from genzoo.core.errors import UsageError, did_you_mean
from genzoo.nn.blocks import MambaBlock
from genzoo.nn.count import thop_count
from genzoo.nn.mamba import mixer_options
from genzoo.nn.token_denoiser import TokenDenoiser

SCANS = {
    "alternating": ("spatial", "temporal"),
    "global": ("global_spatial_first", "global_spatial_first"),
}


class DiMVideo(TokenDenoiser):
    """Diffusion model of clips with bidirectional Mamba blocks, for video alone or together with stills.

    scan: "alternating" (even blocks within frames, odd blocks across them) or "global" (every block over the
    whole clip, frame by frame).   num_classes=0: unconditional.
    mixer, expand, d_state, d_conv, divide_output, scan_backend: see genzoo.nn.mamba.
    A fresh model returns exactly zero.
    """

    def __init__(
        self,
        *,
        depth: int,
        hidden_size: int,
        patch_size: int = 2,
        input_size: int | Sequence[int] = 32,
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
        if scan not in SCANS:
            hint = did_you_mean(scan, SCANS) or f"choose one of {', '.join(SCANS)}"
            raise UsageError(f"there is no scan {scan!r}; {hint}")
        super().__init__(locals(), even="depth" if scan == "alternating" else None)
        self.add_conditions()
        options = mixer_options(self.arguments)
        blocks = (MambaBlock(hidden_size, mlp_ratio=mlp_ratio, **options) for _ in range(depth))
        self.add_blocks(blocks, [SCANS[scan][index % 2] for index in range(depth)])

    def paper_count(self) -> dict[str, float]:
        """Counted like DiM's images, thop of three samples; the paper prints no count of clips."""
        return thop_count(self, batch=3)
