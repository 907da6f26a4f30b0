"""Released DiT weights to our DiT and back."""

from __future__ import annotations

from genzoo.families.dim.dit import DiT
from genzoo.pretrained.dit_layout import DiTLayout


def dit_converter() -> DiTLayout:
    """Reads DiT-XL-2-256x256.pt and the files of DiT's training script."""
    return DiTLayout("dit", title="DiT", build=DiT, recipe="dit_xl2_imagenet")
