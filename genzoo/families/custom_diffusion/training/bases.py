"""Which bases concepts can be taught to."""

from __future__ import annotations

from pathlib import Path

from genzoo.core.errors import UsageError
from genzoo.families.custom_diffusion.edit.attention_models import EXACT
from genzoo.families.custom_diffusion.edit.text_models import transformer_class
from genzoo.families.custom_diffusion.files.base_weights import part_of

UNREADABLE = {"AllegroTransformer3DModel": "its autoencoder in diffusers encodes clips in tiles alone"}
"""Whose pictures cannot become latents, and why."""


def is_transformer(base: str | Path) -> bool:
    """Whether a base paints with a transformer.

    Raises UsageError, with the reason and what works instead, for one whose keys and values do not read the
    text alone.
    """
    if part_of(base) != "transformer":
        return False
    kind = transformer_class(base)
    if kind not in EXACT:
        raise UsageError(
            f"concepts are keys and values of the text, and {kind} has none of its own",
            where=str(base),
            why="its text tokens change with the picture in every block",
            fix="merge-concepts takes LoRA files that other programs taught it; a base with cross-attention "
            f"({', '.join(sorted({*EXACT} - {*UNREADABLE}))}) learns here",
        )
    return True


def is_taught_transformer(base: str | Path, freeze_mode: str) -> bool:
    """The same of a base to teach. Raises UsageError for one, or for weights of one, not trained here too."""
    if not is_transformer(base):
        return False
    kind = transformer_class(base)
    if kind in UNREADABLE:
        raise UsageError(
            f"{kind} is not taught here",
            where=str(base),
            why=UNREADABLE[kind],
            fix="edit-concepts changes its words in closed form, and merge-concepts takes its LoRA files",
        )
    if freeze_mode != "crossattn_kv":
        raise UsageError(
            f"freeze_mode={freeze_mode!r} is of bases with a UNet",
            where=str(base),
            fix="model.freeze_mode=crossattn_kv, which trains keys and values of the text",
        )
    return True
