"""Released DiT and SiT weights to our DiT and back."""

from __future__ import annotations

from genzoo.families.dim.dit import DiT
from genzoo.pretrained.dit_layout import DiTLayout

SIT_TASK = {"name": "flow_matching", "path": "linear", "prediction": "velocity", "time_scale": 1.0}


def dit_converter() -> DiTLayout:
    """Reads DiT-XL-2-256x256.pt and the files of DiT's training script."""
    return DiTLayout("dit", title="DiT", build=DiT, recipe="dit_xl2_imagenet")


def sit_converter() -> DiTLayout:
    """Reads SiT-XL-2-256x256.pt, whose entries are named as DiT's: the layout has to be named, --from sit."""
    return DiTLayout("dit", title="SiT", build=DiT, recipe="sit_xl2_imagenet", claimed=False, task=SIT_TASK)
