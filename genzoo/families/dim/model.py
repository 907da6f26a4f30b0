"""DiM: DiT with bidirectional Mamba in place of attention.

Mo & Tian, "Scaling Diffusion Mamba with Bidirectional SSMs for Efficient Image and Video Generation", 2024.
README.md beside this file maps the paper to the code and says what was chosen where the paper is silent.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genzoo.core.errors import UsageError, did_you_mean
from genzoo.nn.blocks import MambaBlock
from genzoo.nn.count import thop_count
from genzoo.nn.grid_order import orders_of_blocks
from genzoo.nn.mamba import mixer_options
from genzoo.nn.routing import Route
from genzoo.nn.token_denoiser import TokenDenoiser

CONVOLUTIONS = ("after_block", "in_mixer")


class DiM(TokenDenoiser):
    """Diffusion model whose tokens meet in bidirectional state-space scans, row by row and back.

    mixer: "v2" (scan parameters for each direction), "v1" (shared but for A) or "none" (forward only).
    expand, d_state: inner width and states per channel of the mixer.   scan_backend: see genzoo.kernels.
    scan_orders: in which order each block scans the tokens, one of `genzoo.nn.grid_order` for all or several
    in turn: ["rows", "columns"] sees four directions with the v2 mixer.   conv2d: "after_block" adds a
    depthwise 2-d convolution, at first the identity, behind each block (DiG); "in_mixer" puts one in the
    place of the mixers' causal convolutions.
    cls_token: prepend a learned token and drop it before the output.   num_classes=0: unconditional.
    null_class=False leaves out the row for dropped labels. A fresh model returns exactly zero.
    """

    def __init__(
        self,
        *,
        depth: int,
        hidden_size: int,
        patch_size: int,
        input_size: int | Sequence[int] = 32,
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
        scan_orders: str | Sequence[str] = "rows",
        conv2d: str | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(locals())
        self.add_conditions()
        if conv2d not in (None, *CONVOLUTIONS):
            hint = did_you_mean(conv2d, CONVOLUTIONS) or f"choose {' or '.join(CONVOLUTIONS)}"
            raise UsageError(f"conv2d is {conv2d!r}", fix=hint)
        options = mixer_options(self.arguments) | {"grid": self.grid, "conv2d": conv2d == "in_mixer"}
        conv_grid = self.grid if conv2d == "after_block" else None
        self.add_blocks(
            MambaBlock(hidden_size, mlp_ratio=mlp_ratio, conv_grid=conv_grid, order=order, **options)
            for order in orders_of_blocks(scan_orders, depth)
        )
        self.cls_token = nn.Parameter(torch.empty(1, 1, hidden_size)) if cls_token else None
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=0.02)

    def mix_tokens(self, tokens: Tensor, c: Tensor, route: Route | None = None) -> Tensor:
        """The blocks, over the class token in front of the sequence where there is one."""
        if self.cls_token is None:
            return super().mix_tokens(tokens, c, route)
        tokens = torch.cat([self.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        return super().mix_tokens(tokens, c, route)[:, 1:]

    def block_options(self, kept: Tensor | None = None) -> dict[str, Tensor]:
        """The places of tokens that are there, when not all are: mixers put them in their scan order."""
        return {} if kept is None else {"kept": kept}

    def paper_count(self) -> dict[str, float]:
        """Parameters (M) and Gflops as Tables 4 to 6 print them: `thop_count` of three samples."""
        return thop_count(self, batch=3)
