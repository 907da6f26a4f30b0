"""Concept files as something to sample: one concept or several merged ones, on the base they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genzoo.core.recipe import MISSING, Recipe, recipe_from
from genzoo.core.tensor_files import look
from genzoo.pretrained.shipped import is_shipped

SUFFIXES = (".safetensors", ".bin", ".ckpt")


def open_concept(path: Path, *, base: str | None = None, any_base: bool = False) -> Recipe | None:
    """A recipe that samples a concept's file or folder, in any layout; None when it is nothing like that.

    base: the base model; our own files name theirs.   any_base: as in `apply_concept`.
    """
    from genzoo.families.custom_diffusion.files.concept import own_record
    from genzoo.families.custom_diffusion.files.read_layouts import OWN_FILE, PROCESSOR_FILES

    file = path
    if path.is_dir():
        found = [path / name for name in (OWN_FILE, *PROCESSOR_FILES) if (path / name).is_file()]
        if not found:
            return None
        file = found[0]
    if not file.is_file() or file.suffix not in SUFFIXES:
        return None
    record = own_record(file) or {}
    if not record and not _may_be(file):
        return None
    return recipe_from(
        {
            "name": path.stem,
            "task": {"name": "custom_diffusion"},
            "model": {
                "name": "custom_diffusion",
                "base_model": base or _base_of(record) or MISSING,
                "concept": str(path),
                "any_base": any_base,
            },
            "data": {"name": "concepts", "concepts": MISSING},
            "sampler": {"name": "ddim", "steps": 50, "eta": 1.0, "guidance_scale": 6.0, "block_size": 4},
        },
        source=str(path),
    )


def _may_be(file: Path) -> bool:
    """Whether a safetensors file has names of cross-attention; of pickles the reader says it."""
    from genzoo.families.custom_diffusion.files.weight_names import is_cross_attention, is_processor

    if file.suffix != ".safetensors":
        return True
    names = look(file, lambda opened: list(opened.keys()), "the concept")
    if names is None:
        return True  # whoever reads it says what is wrong
    return any(is_processor(name) or is_cross_attention(name) for name in names)


def _base_of(record: dict[str, Any]) -> str | None:
    """Where the base lay, its hub id, or its name when it ships with genzoo.

    Whether it is the right one is checked when it is loaded.
    """
    local = (record.get("notes") or {}).get("base_path")
    if isinstance(local, str):
        return local if Path(local).is_dir() else None
    model = record.get("base_model")
    return model if isinstance(model, str) and ("/" in model or is_shipped(model)) else None
