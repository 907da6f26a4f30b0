"""Latte (Ma et al. 2024), baseline of Matten and of DiM for clips, with the keys of its released weights."""

from __future__ import annotations

from torch import Tensor, nn

from genzoo.families.matten.count import latte_paper_count
from genzoo.nn.blocks import AttentionBlock
from genzoo.nn.video_shell import (
    FIXED_TABLES,
    add_condition_embedders,
    close_shell,
    example_video_inputs,
    open_shell,
    predict_clip,
)


class Latte(nn.Module):
    """Diffusion transformer whose blocks look along space and along time in turn.

    depth: blocks in all, an even number.   num_classes=0: unconditional (Latte's extras=1), else by class
    (extras=2).   null_class=False leaves out the row for dropped labels. A fresh model returns exactly zero.
    """

    fixed_tables = FIXED_TABLES

    def __init__(
        self,
        *,
        depth: int,
        hidden_size: int,
        num_heads: int,
        patch_size: int = 2,
        input_size: int = 32,
        num_frames: int = 16,
        in_channels: int = 4,
        num_classes: int = 0,
        mlp_ratio: float = 4.0,
        learn_sigma: bool = True,
        null_class: bool = True,
        gradient_checkpointing: bool = False,
    ) -> None:
        arguments = locals()
        super().__init__()
        open_shell(self, arguments, even="depth")
        add_condition_embedders(self)
        blocks = (AttentionBlock(hidden_size, num_heads, mlp_ratio=mlp_ratio) for _ in range(depth))
        close_shell(self, blocks, ("spatial", "temporal") * (depth // 2))

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
        """Parameters (M) and Gflops of Latte's own profile, from which Matten's Table 1 quotes."""
        return latte_paper_count(self)
