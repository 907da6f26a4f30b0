"""Matten: local attention within and across frames, global bidirectional Mamba over the whole clip.

Gao et al., "Matten: Video Generation with Mamba-Attention", 2024. README.md beside this file maps the paper
to the code, and says what its tables force and what was chosen.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from genzoo.core.errors import UsageError, did_you_mean
from genzoo.families.matten.blocks import AdaptiveMambaBlock, PlainAttentionBlock, PlainMambaBlock
from genzoo.families.matten.count import matten_paper_count
from genzoo.families.matten.tokens import ConditionTokens, plain_final_layer, run_blocks_with_tokens
from genzoo.families.matten.variants import block_plan
from genzoo.nn.blocks import AttentionBlock
from genzoo.nn.mamba import mixer_options
from genzoo.nn.modulation import FinalLayer
from genzoo.nn.token_denoiser import TokenDenoiser
from genzoo.nn.video import add_frame_positions


class Matten(TokenDenoiser):
    """Diffusion model of clips with Mamba blocks, attention blocks or both.

    variant: 1 global Mamba; 2 spatial and temporal Mamba in turn; 3 spatial attention, temporal attention,
    global Mamba; 4 temporal attention, global Mamba.   depth: L of Table 3; variants.py turns it into blocks.
    scan: order of the global sequence, "spatial_first" or "temporal_first".
    conditioning: "adaln" (M-AdaN) or "tokens".   residual: of M-AdaN, "dit" or "as_printed".
    mixer, expand, d_state, d_conv, divide_output, scan_backend: see genzoo.nn.mamba.
    num_classes=0: unconditional. A fresh model returns exactly zero.
    """

    positions_at_input = True

    def __init__(
        self,
        *,
        depth: int,
        hidden_size: int,
        num_heads: int,
        variant: int = 3,
        patch_size: int = 2,
        input_size: int | Sequence[int] = 32,
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
        _check_conditioning(conditioning, residual)
        super().__init__(locals())
        self.conditioning = conditioning
        adaln = conditioning == "adaln"
        options, build_final = mixer_options(self.arguments), FinalLayer if adaln else plain_final_layer
        if adaln:
            self.add_conditions()
            options["residual"] = residual
        else:
            self.condition_tokens = ConditionTokens(
                hidden_size, num_classes=num_classes, null_class=null_class
            )
        plan, (attention, mamba) = block_plan(variant, depth, scan), _BLOCKS[conditioning]
        blocks = (
            attention(hidden_size, num_heads=num_heads, mlp_ratio=mlp_ratio)
            if kind == "attention"
            else mamba(hidden_size, **options)
            for kind, _ in plan
        )
        self.add_blocks(blocks, [order for _, order in plan], build_final)

    def predict_tokens(
        self,
        tokens: Tensor,
        timesteps: Tensor,
        class_labels: Tensor | None,
        image_labels: Tensor | None,
        use_image_num: int,
    ) -> Tensor:
        """The blocks and the final layer, modulated by the condition or with its tokens in the sequences."""
        if self.conditioning == "adaln":
            return super().predict_tokens(tokens, timesteps, class_labels, image_labels, use_image_num)
        if use_image_num:
            raise UsageError(
                "conditional tokens describe one clip; stills have labels of their own",
                fix='set conditioning to "adaln", or use_image_num to 0',
            )
        tokens = run_blocks_with_tokens(
            self.blocks,
            self.orders,
            add_frame_positions(tokens, self.temp_embed),
            self.condition_tokens(timesteps, class_labels),
            gradient_checkpointing=self.gradient_checkpointing,
        )
        predicted: Tensor = self.final_layer(tokens)
        return predicted

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
