"""DiT (Peebles & Xie, ICCV 2023), the attention baseline; reads the key layout of the released weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from genzoo.nn.blocks import AttentionBlock
from genzoo.nn.count import thop_count
from genzoo.nn.modulation import FinalLayer
from genzoo.nn.rotary import GridRotation
from genzoo.nn.token_denoiser import TokenDenoiser

OPTIONS = ("qk_norm", "rms_norm", "swiglu", "modulation_shift")


class DiT(TokenDenoiser):
    """Diffusion transformer with adaLN-Zero blocks over the patches of a latent image.

    qk_norm, rope, rms_norm, swiglu, modulation_shift: LightningDiT's blocks, the plain DiT when all are off:
    normed queries and keys, rotary positions beside the table, root-mean-square norms, a gated perceptron,
    and modulations without shift when False.
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
        qk_norm: bool = False,
        rope: bool = False,
        rms_norm: bool = False,
        swiglu: bool = False,
        modulation_shift: bool = True,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(locals())
        self.add_conditions()
        self.feat_rope = GridRotation(hidden_size // num_heads, self.grid) if rope else None
        options = {name: self.arguments[name] for name in OPTIONS} | {"mlp_ratio": mlp_ratio}
        blocks = (AttentionBlock(hidden_size, num_heads, **options) for _ in range(depth))
        self.add_blocks(blocks, build_final=partial(FinalLayer, rms_norm=rms_norm))

    def block_options(self, kept: Tensor | None = None) -> dict[str, tuple[Tensor, Tensor]]:
        """Rotary positions, where the model has them, of the tokens that are there."""
        return {} if self.feat_rope is None else {"rotation": self.feat_rope(kept)}

    def paper_count(self) -> dict[str, float]:
        """Parameters (M) and Gflops as DiM's Table 4 counts its baseline: `thop_count` of three samples."""
        return thop_count(self, batch=3)
