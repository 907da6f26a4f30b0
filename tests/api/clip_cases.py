"""A tiny recipe of clips, and clips of noise."""

from __future__ import annotations

from typing import Any

import torch
from recipe_cases import TINY

FRAMES, SIZE = 3, 12
CLIPS: dict[str, Any] = {
    **TINY,
    "name": "tiny_clips",
    "model": {
        "name": "matten", "depth": 2, "hidden_size": 16, "num_heads": 2, "patch_size": 4, "d_state": 4,
        "learn_sigma": False, "num_frames": "auto", "num_classes": "auto", "input_size": "auto",
        "in_channels": "auto",
    },
    "data": {"name": "moving_digits", "num_frames": FRAMES, "image_size": SIZE, "use_image_num": 1},
    "train": {**TINY["train"], "steps": 2, "checkpoint_every": 2, "batch_size": 4},
    "preview": {"every": 2, "num": 2},
}  # fmt: skip


def random_clips(num: int = 4, channels: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (num, FRAMES, channels, SIZE, SIZE), dtype=torch.uint8, generator=generator)
