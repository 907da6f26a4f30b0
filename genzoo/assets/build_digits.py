"""Rebuild digits.safetensors from scikit-learn's copy of the UCI digits.

    pip install scikit-learn && python -m genzoo.assets.build_digits

The images keep their order and their integer values 0..16; they become uint8. scikit-learn is needed only
here.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file


def build(path: Path) -> None:
    """Write images (1797, 8, 8) uint8 and labels (1797,) uint8; scikit-learn is imported for this only."""
    from sklearn.datasets import load_digits  # type: ignore[import-untyped,import-not-found,unused-ignore]

    digits = load_digits()
    images = torch.from_numpy(digits.images).to(torch.uint8)
    labels = torch.from_numpy(digits.target).to(torch.uint8)
    save_file({"images": images, "labels": labels}, path, {"source": "scikit-learn load_digits (UCI, 1998)"})


if __name__ == "__main__":
    build(Path(__file__).with_name("digits.safetensors"))
