"""A text-to-image base in diffusers' layout as something to sample: any prompt, nothing taught."""

from __future__ import annotations

from pathlib import Path

from genzoo.core.errors import UsageError
from genzoo.core.reading import read_record
from genzoo.core.recipe import MISSING, Recipe, recipe_from


def open_base(path: Path) -> Recipe | None:
    """A recipe that samples a folder of Stable Diffusion 1.x, 2.x or XL, such as `edit-concepts` writes; None
    for anything else.
    """
    index = path / "model_index.json"
    if index.is_file() and (path / "transformer").is_dir() and not (path / "unet").is_dir():
        raise UsageError(
            "text-to-image bases with a transformer are edited and their LoRA files merged here, not sampled",
            where=str(path),
            fix=f'diffusers.DiffusionPipeline.from_pretrained("{path}")("a prompt")',
        )
    if not index.is_file() or not (path / "unet").is_dir():
        return None
    if "unet" not in read_record(index):
        return None
    return recipe_from(
        {
            "name": path.resolve().name,
            "task": {"name": "custom_diffusion", "prompts": [""]},
            # the empty phrase is in every prompt: none of them is refused for lack of a taught word
            "model": {"name": "custom_diffusion", "base_model": str(path), "phrases": [""]},
            "data": {"name": "concepts", "concepts": MISSING},
            "sampler": {"name": "ddim", "steps": 50, "eta": 1.0, "guidance_scale": 6.0, "block_size": 4},
        },
        source=str(path),
    )
