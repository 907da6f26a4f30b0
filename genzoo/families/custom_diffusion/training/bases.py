"""Which bases concepts can be taught to."""

from __future__ import annotations

from pathlib import Path

from genzoo.core.errors import UsageError
from genzoo.families.custom_diffusion.edit.attention_models import EXACT
from genzoo.families.custom_diffusion.edit.text_models import transformer_class
from genzoo.families.custom_diffusion.files.base_weights import part_of


def require_unet(base: str | Path) -> None:
    """Raise UsageError, with the reason and what works instead, for a base whose transformer paints.

    Each such transformer is told size, frame rate, guidance and time in a way of its own, and noises pictures
    by its own path; the trainer knows those of Stable Diffusion's UNets.
    """
    if part_of(base) != "transformer":
        return
    kind = transformer_class(base)
    works = "merge-concepts takes LoRA files that other programs taught it"
    if kind in EXACT:
        works += "; edit-concepts changes its words in closed form"
    raise UsageError(
        f"concepts are taught to bases with a UNet, and {kind} is a transformer",
        where=str(base),
        why="it is trained along a path and under conditions of its own, which the trainer does not know",
        fix=f"a base such as Stable Diffusion 1.x, 2.x or XL; for this one {works}",
    )
