"""Small folders of pictures, and what a command answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

TINY = """
base: quickstart/dim_digits
name: tiny
model: {depth: 1, hidden_size: 24, patch_size: 4, d_state: 3}
data: {base: data/image_folder, root: "???", image_size: 12, horizontal_flip: false}
sampler: {steps: 3, block_size: 8}
optim: {base: optim/adamw, lr: 1e-3}
train: {steps: 4, batch_size: 6, checkpoint_every: 2, log_every: 1, tensorboard: false}
preview: null
report: []
held_out: null
"""


class Answer(NamedTuple):
    """code: the exit status.   text: all that was printed."""

    code: int
    text: str


Gz = Callable[..., Answer]


def fill(folder: Path, num: int = 5, *, seed: int = 0, size: tuple[int, int] = (14, 13)) -> Path:
    """Pictures 0.png, 1.png, ... of noise around a colour."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for index in range(num):
        levels = generator.integers(0, 60, (size[1], size[0], 3), dtype=np.uint8)
        levels[..., seed % 3] += 150
        Image.fromarray(levels).save(folder / f"{index}.png")
    return folder


def fill_classes(folder: Path, names: str = "abc", num: int = 4) -> Path:
    """A folder for each letter, with pictures."""
    for seed, name in enumerate(names):
        fill(folder / name, num, seed=seed)
    return folder


def spoil(picture: Path) -> None:
    """Cut a picture off, as a broken download does."""
    picture.write_bytes(picture.read_bytes()[:200])
