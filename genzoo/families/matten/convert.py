"""Released Latte weights to our Latte and back."""

from __future__ import annotations

from genzoo.families.matten.latte import Latte
from genzoo.pretrained.dit_layout import DiTLayout


def latte_converter() -> DiTLayout:
    """Reads Latte's checkpoints ({ema} or {model}) of unconditional models and of those with classes."""
    return DiTLayout("latte", title="Latte", build=Latte, recipe="latte_xl_ucf101", clips=True)
