"""Small models of clips, all sizes different, and what the tests of every such model share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.families.dim.video import DiMVideo
from genzoo.families.matten.latte import Latte
from genzoo.families.matten.model import Matten

FRAMES, CHANNELS, SIZE, CLASSES = 4, 3, 6, 5
SMALL: dict[str, Any] = {
    "depth": 2, "hidden_size": 24, "patch_size": 2, "input_size": SIZE, "num_frames": FRAMES,
    "in_channels": CHANNELS, "num_classes": CLASSES,
}  # fmt: skip
MAMBA: dict[str, Any] = {**SMALL, "d_state": 4}

Builder = Callable[..., nn.Module]


def builder(kind: type[nn.Module], defaults: dict[str, Any]) -> Builder:
    return lambda **options: kind(**{**defaults, **options})


JOINT: dict[str, Builder] = {
    "latte": builder(Latte, {**SMALL, "num_heads": 3}),
    "dim_video": builder(DiMVideo, MAMBA),
    "dim_video_global": builder(DiMVideo, {**MAMBA, "scan": "global"}),
    **{
        f"matten_{variant}": builder(Matten, {**MAMBA, "num_heads": 3, "variant": variant})
        for variant in (1, 2, 3, 4)
    },
    "matten_as_printed": builder(Matten, {**MAMBA, "num_heads": 3, "residual": "as_printed"}),
}
TOKENS: dict[str, Builder] = {
    f"matten_tokens_{variant}": builder(
        Matten, {**MAMBA, "num_heads": 3, "variant": variant, "conditioning": "tokens"}
    )
    for variant in (1, 2, 3, 4)
}
EVERY = {**JOINT, **TOKENS}


def inputs(batch: int = 2, stills: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """x, timesteps, class_labels."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, FRAMES + stills, CHANNELS, SIZE, SIZE, generator=generator)
    return x, torch.arange(batch) * 400, torch.arange(batch) % (CLASSES + 1)


@torch.no_grad()
def opened(model: nn.Module) -> nn.Module:
    """The model with its zero-initialised layers opened, so that everything matters."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "adaLN_modulation" in name or "final_layer" in name:
            parameter.normal_(std=0.2)
    return model
