"""Latte (Ma et al. 2024), baseline of Matten and of DiM for clips, with the keys of its released weights."""

from __future__ import annotations

from collections.abc import Sequence

from genzoo.families.matten.count import latte_paper_count
from genzoo.nn.blocks import AttentionBlock
from genzoo.nn.token_denoiser import TokenDenoiser


class Latte(TokenDenoiser):
    """Diffusion transformer whose blocks look along space and along time in turn.

    depth: blocks in all, an even number.   num_classes=0: unconditional (Latte's extras=1), else by class
    (extras=2).   null_class=False leaves out the row for dropped labels. A fresh model returns exactly zero.
    """

    def __init__(
        self,
        *,
        depth: int,
        hidden_size: int,
        num_heads: int,
        patch_size: int = 2,
        input_size: int | Sequence[int] = 32,
        num_frames: int = 16,
        in_channels: int = 4,
        num_classes: int = 0,
        mlp_ratio: float = 4.0,
        learn_sigma: bool = True,
        null_class: bool = True,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(locals(), even="depth")
        self.add_conditions()
        blocks = (AttentionBlock(hidden_size, num_heads, mlp_ratio=mlp_ratio) for _ in range(depth))
        self.add_blocks(blocks, ("spatial", "temporal") * (depth // 2))

    def paper_count(self) -> dict[str, float]:
        """Parameters (M) and Gflops of Latte's own profile, from which Matten's Table 1 quotes."""
        return latte_paper_count(self)
