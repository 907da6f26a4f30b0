"""DiT (Peebles & Xie, ICCV 2023), the attention baseline; reads the key layout of the released weights."""

from __future__ import annotations

from collections.abc import Sequence

from genzoo.nn.blocks import AttentionBlock
from genzoo.nn.count import thop_count
from genzoo.nn.token_denoiser import TokenDenoiser


class DiT(TokenDenoiser):
    """Diffusion transformer with adaLN-Zero blocks over the patches of a latent image.

    num_classes=0 builds an unconditional model; null_class=False leaves out the row for dropped labels.
    A fresh model returns exactly zero.
    """

    def __init__(
        self,
        *,
        depth: int,
        hidden_size: int,
        num_heads: int,
        patch_size: int,
        input_size: int | Sequence[int] = 32,
        in_channels: int = 4,
        num_classes: int = 1000,
        mlp_ratio: float = 4.0,
        learn_sigma: bool = True,
        null_class: bool = True,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(locals())
        self.add_conditions()
        self.add_blocks(AttentionBlock(hidden_size, num_heads, mlp_ratio=mlp_ratio) for _ in range(depth))

    def paper_count(self) -> dict[str, float]:
        """Parameters (M) and Gflops as DiM's Table 4 counts its baseline: `thop_count` of three samples."""
        return thop_count(self, batch=3)
