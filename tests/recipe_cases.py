"""The shipped recipes, and a small one that trains in seconds."""

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = sorted((ROOT / "recipes").rglob("*.yaml"))

TINY: dict[str, Any] = {
    "name": "tiny",
    "task": {"name": "latent_diffusion", "label_dropout": 0.1, "loss": {"name": "noise_mse"}},
    "model": {
        "name": "dit", "depth": 2, "hidden_size": 24, "num_heads": 2, "patch_size": 4, "learn_sigma": False,
        "num_classes": "auto", "input_size": "auto", "in_channels": "auto",
    },
    "data": {"name": "digits"},
    "sampler": {"name": "ddim", "steps": 3, "guidance_scale": 1.5, "block_size": 4},
    "optim": {"name": "adamw", "lr": 1e-3},
    "train": {
        "steps": 6, "batch_size": 12, "checkpoint_every": 2, "keep_last": 2, "log_every": 1, "ema_decay": 0.9,
        "tensorboard": False,
    },
    "preview": {"every": 3, "num": 5},
    "report": [{"name": "sample_grid", "rows": 2, "columns": 3}],
}  # fmt: skip
