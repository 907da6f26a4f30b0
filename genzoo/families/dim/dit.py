"""DiT (Peebles & Xie, ICCV 2023), the attention baseline; reads the key layout of the released weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from genzoo.families.dim.shell import check_inputs, check_sizes, embed_condition, example_inputs
from genzoo.nn.blocks import AttentionBlock, run_blocks
from genzoo.nn.count import thop_count
from genzoo.nn.embeddings import LabelEmbedding, TimestepEmbedding, position_parameter, sincos_2d
from genzoo.nn.modulation import FinalLayer
from genzoo.nn.patch import PatchEmbed, unpatchify


class DiT(nn.Module):
    """Diffusion transformer with adaLN-Zero blocks over the patches of a latent image.

    num_classes=0 builds an unconditional model; null_class=False leaves out the row for dropped labels.
    A fresh model returns exactly zero.
    """

    fixed_tables = ("pos_embed",)

    def __init__(
        self,
        *,
        depth: int,
        hidden_size: int,
        num_heads: int,
        patch_size: int,
        input_size: int = 32,
        in_channels: int = 4,
        num_classes: int = 1000,
        mlp_ratio: float = 4.0,
        learn_sigma: bool = True,
        null_class: bool = True,
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
        self.blocks = nn.ModuleList(
            AttentionBlock(hidden_size, num_heads, mlp_ratio=mlp_ratio) for _ in range(depth)
        )
        self.final_layer = FinalLayer(hidden_size, patch_size**2 * out_channels)

    def forward(self, x: Tensor, timesteps: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Predict the noise, and with learn_sigma the variance, of diffused latents.

        x: (b, c, h, w).   timesteps: (b,) original indices.   class_labels: (b,), num_classes = no label.
        Returns (b, 2c, h, w) with learn_sigma, else (b, c, h, w).
        """
        check_inputs(self, x, timesteps, class_labels)
        c = embed_condition(self, timesteps, class_labels)
        tokens = self.x_embedder(x) + self.pos_embed
        tokens = run_blocks(self.blocks, tokens, c, gradient_checkpointing=self.gradient_checkpointing)
        return unpatchify(self.final_layer(tokens, c), self.patch_size)

    def example_inputs(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Arguments of `forward` for one sample."""
        return example_inputs(self)

    def paper_count(self) -> dict[str, float]:
        """Parameters (M) and Gflops as DiM's Table 4 counts its baseline: `thop_count` of three samples."""
        return thop_count(self, batch=3)
