"""DiM: DiT with bidirectional Mamba in place of attention.

Mo & Tian, "Scaling Diffusion Mamba with Bidirectional SSMs for Efficient Image and Video Generation", 2024.
README.md beside this file maps the paper to the code and says what was chosen where the paper is silent.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genzoo.families.dim.shell import check_inputs, check_sizes, embed_condition, example_inputs
from genzoo.nn.blocks import MambaBlock, run_blocks
from genzoo.nn.count import thop_count
from genzoo.nn.embeddings import LabelEmbedding, TimestepEmbedding, position_parameter, sincos_2d
from genzoo.nn.modulation import FinalLayer
from genzoo.nn.patch import PatchEmbed, unpatchify


class DiM(nn.Module):
    """Diffusion model whose tokens meet in bidirectional state-space scans, row by row and back.

    mixer: "v2" (scan parameters for each direction), "v1" (shared but for A) or "none" (forward only).
    expand, d_state: inner width and states per channel of the mixer.   scan_backend: see genzoo.kernels.
    cls_token: prepend a learned token and drop it before the output.   num_classes=0: unconditional.
    null_class=False leaves out the row for dropped labels. A fresh model returns exactly zero.
    """

    fixed_tables = ("pos_embed",)

    def __init__(
        self,
        *,
        depth: int,
        hidden_size: int,
        patch_size: int,
        input_size: int = 32,
        in_channels: int = 4,
        num_classes: int = 1000,
        mlp_ratio: float = 4.0,
        learn_sigma: bool = True,
        null_class: bool = True,
        cls_token: bool = False,
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
        check_sizes(depth=depth, hidden_size=hidden_size, patch_size=patch_size, input_size=input_size)
        self.arguments: dict[str, Any] = arguments
        self.num_classes, self.in_channels, self.learn_sigma = num_classes, in_channels, learn_sigma
        self.input_size, self.patch_size = input_size, patch_size
        self.gradient_checkpointing = gradient_checkpointing
        out_channels = 2 * in_channels if learn_sigma else in_channels
        self.x_embedder = PatchEmbed(in_channels, hidden_size, patch_size)
        self.t_embedder = TimestepEmbedding(hidden_size)
        self.y_embedder = (
            LabelEmbedding(num_classes, hidden_size, null_class=null_class) if num_classes else None
        )
        self.pos_embed = position_parameter(sincos_2d(hidden_size, input_size // patch_size))
        mixer_options = {
            "mixer": mixer, "expand": expand, "d_state": d_state, "d_conv": d_conv,
            "divide_output": divide_output, "scan_backend": scan_backend,
        }  # fmt: skip
        self.blocks = nn.ModuleList(
            MambaBlock(hidden_size, mlp_ratio=mlp_ratio, **mixer_options) for _ in range(depth)
        )
        self.final_layer = FinalLayer(hidden_size, patch_size**2 * out_channels)
        self.cls_token = nn.Parameter(torch.empty(1, 1, hidden_size)) if cls_token else None
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=0.02)

    def forward(self, x: Tensor, timesteps: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Predict the noise, and with learn_sigma the variance, of diffused latents.

        x: (b, c, h, w).   timesteps: (b,) original indices.   class_labels: (b,), num_classes = no label.
        Returns (b, 2c, h, w) with learn_sigma, else (b, c, h, w).
        """
        check_inputs(self, x, timesteps, class_labels)
        c = embed_condition(self, timesteps, class_labels)
        tokens = self.x_embedder(x) + self.pos_embed
        if self.cls_token is not None:
            tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], dim=1)
        tokens = run_blocks(self.blocks, tokens, c, gradient_checkpointing=self.gradient_checkpointing)
        if self.cls_token is not None:
            tokens = tokens[:, 1:]
        return unpatchify(self.final_layer(tokens, c), self.patch_size)

    def example_inputs(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Arguments of `forward` for one sample."""
        return example_inputs(self)

    def paper_count(self) -> dict[str, float]:
        """Parameters (M) and Gflops as Tables 4 to 6 print them: `thop_count` of three samples."""
        return thop_count(self, batch=3)
