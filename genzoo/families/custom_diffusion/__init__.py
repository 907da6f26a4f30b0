"""Custom Diffusion: taught concepts and their closed-form merge. This card imports no torch."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from genzoo.core.registry import COMMANDS, DATASETS, METRICS, MODELS, SOURCES, TASKS

_HERE = "genzoo.families.custom_diffusion"

MODELS.lazy(
    "custom_diffusion",
    f"{_HERE}.training.model:custom_diffusion",
    help="a frozen text-to-image base with trainable cross-attention and new words (Kumari et al.)",
    port="concepts",
)
TASKS.lazy(
    "custom_diffusion",
    f"{_HERE}.training.task:ConceptTask",
    help="teach a text-to-image base a concept, or several",
    port="generates",
    takes={"model": "concepts", "data": "concepts", "sampler": "diffusion", "codec": None},
)
DATASETS.lazy(
    "concepts",
    f"{_HERE}.data.dataset:ConceptImages",
    help="pictures of concepts and of their classes, from a concept list (JSON)",
    port="concepts",
)

SOURCES.lazy(
    "concept", f"{_HERE}.files.open_concept:open_concept", help="a taught concept, or several merged ones"
)
SOURCES.lazy(
    "text_to_image_base",
    f"{_HERE}.files.open_base:open_base",
    help="a text-to-image model in diffusers' layout",
)
METRICS.lazy(
    "concept_file",
    f"{_HERE}.files.concept_file:concept_file",
    help="writes what was taught as concept.safetensors",
    takes={"model": "concepts"},
)
COMMANDS.lazy(
    "prepare regularization",
    f"{_HERE}.commands.prepare:regularization_command",
    help="Pictures that keep a concept's class as it was: from a folder, painted, or from a collection.",
)
METRICS.lazy(
    "weight_change",
    f"{_HERE}.weight_change:weight_change",
    help="how far each kind of layer moved from the base (the paper's Figure 3), with a picture",
    takes={"model": "concepts"},
)
METRICS.lazy(
    "concept_study",
    f"{_HERE}.concept_study:concept_study",
    help="teaches a second concept, merges both, and compares samples before and after",
    takes={"model": "concepts"},
)
COMMANDS.lazy(
    "teach",
    f"{_HERE}.commands.teach:teach_command",
    help="Teach a base a concept from a folder of photographs, in one line.",
)
COMMANDS.lazy(
    "merge-concepts",
    "genzoo.families.custom_diffusion.commands.concepts:merge_command",
    help="Merge concepts of one base model in closed form, with a report on each.",
)
COMMANDS.lazy(
    "edit-concepts",
    f"{_HERE}.commands.edits:edit_command",
    help="Change what words mean to a base model, in closed form, with a report on each edit.",
)
COMMANDS.lazy(
    "convert-concept",
    "genzoo.families.custom_diffusion.commands.concepts:convert_command",
    help="Write a concept in another layout (LoRA, kohya, diffusers, official), or compress it.",
)

_WHERE = {
    "ConceptDelta": "files.concept",
    "read_concept": "files.read_layouts",
    "write_concept": "files.write_layouts",
    "apply_concept": "files.apply",
    "edit_concepts": "edit.concepts",
    "edit_model": "edit.models",
    "edit_weights": "edit.solve",
    "merge_concepts": "merge.concepts",
    "merge_loras": "lora.merge",
    "merge_models": "edit.models",
    "merge_weights": "merge.algebra",
}
__all__ = [
    "ConceptDelta",
    "apply_concept",
    "edit_concepts",
    "edit_model",
    "edit_weights",
    "merge_concepts",
    "merge_loras",
    "merge_models",
    "merge_weights",
    "read_concept",
    "write_concept",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
