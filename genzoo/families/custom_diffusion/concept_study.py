"""A study that ends a small run: was the concept learnt, did other captions stay, does a merge keep all?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genzoo.core import files
from genzoo.core.errors import UsageError
from genzoo.core.registry import DATASETS
from genzoo.core.seeds import SampleStreams
from genzoo.core.types import MeasuredRun
from genzoo.diffusion.prompted import sample_prompts, schedule_from
from genzoo.families.custom_diffusion.data.concept_list import MODIFIER
from genzoo.families.custom_diffusion.data.latent_distances import (
    drift,
    latent_features,
    nearest_distance,
    share_found,
    share_named,
)
from genzoo.families.custom_diffusion.merge.concepts import merge_concepts
from genzoo.families.custom_diffusion.training.model import custom_diffusion
from genzoo.families.custom_diffusion.training.task import ConceptTask
from genzoo.pictures.grid import make_sheet
from genzoo.pictures.pixels import nearest_levels
from genzoo.pretrained.text_to_image import load_parts

Draw = Callable[[Sequence[str]], Tensor]
STATES = ("before", "after", "merged")


@dataclass(frozen=True)
class Subject:
    """A concept: its pictures (m, 3, h, w), the prompt of each, and what its words stand for without it."""

    pictures: Tensor
    prompts: list[str]

    @property
    def class_prompts(self) -> list[str]:
        """The prompts without the new words."""
        return [" ".join(MODIFIER.sub("", prompt).split()) for prompt in self.prompts]


def concept_study(
    run: MeasuredRun,
    *,
    second: Mapping[str, Any],
    third: Mapping[str, Any] | None = None,
    gallery: Mapping[str, Any],
    captions: Sequence[str],
    merge: Mapping[str, Any] | None = None,
    samples_per_prompt: int = 4,
    seed: int = 0,
) -> dict[str, Any]:
    """Teach a second concept from the same base, and a third, merge all in closed form, and compare samples.

    second, third: {"concepts": [...], "phrases": [...]} in place of the run's own, and other settings of the
    model.
    gallery: a data section of other captioned pictures; their captions also regularise the merge.   captions:
    of the gallery, whose samples should stay.   merge: options of `merge_concepts`.

    "before" is the base under the prompts without the new word. Distances are those of `closeness`; "found"
    is the share of samples nearer to the concept than to the whole gallery, "named" the share of other
    captions whose samples are nearest to the gallery's picture of that caption. Pictures go to
    samples/concepts.png, the merged concept to merged.safetensors, its report to
    merged.txt.
    """
    if not captions or "concepts" not in second:
        raise UsageError("concept_study needs captions, and concepts of a second concept")
    given = {"second": second} if third is None else {"second": second, "third": third}
    taught_apart = {name: run.variant(name, _changes(one)) for name, one in given.items()}
    merged_file = run.folder / "merged.safetensors"
    collection = _gallery(gallery)
    base = run.plan.model.arguments["base_model"]
    merged = merge_concepts(
        [run.folder.joinpath("concept.safetensors"), *map(_written, taught_apart.values())],
        base=base,
        captions=collection.captions,
        output=_fresh(merged_file),
        **(merge or {}),
    )
    taught: Any = run.task()
    vae = taught.parts.vae
    draws = {
        "before": _base_draw(base, run, seed),
        "first": _task_draw(taught, seed),
        **{name: _task_draw(other.task(), seed) for name, other in taught_apart.items()},
        "merged": _task_draw(_merged_task(base, merged_file, run), seed),
    }
    others = latent_features(_pixels(collection), vae)
    told = merged_file.with_suffix(".txt")
    files.put_file(told, "\n".join(merged.report.lines()) + "\n", sync=False)
    result: dict[str, Any] = {"merge_report": str(told)}
    rows: list[tuple[str, Tensor]] = []
    for name, one in {"first": run, **taught_apart}.items():
        subject = _subject(one)
        found = _samples(subject, draws["before"], draws[name], draws["merged"], samples_per_prompt)
        own = latent_features(subject.pictures, vae)
        for state, pixels in found.items():
            features = latent_features(pixels, vae)
            result[f"{name}_distance_{state}"] = nearest_distance(features, own)
            result[f"{name}_found_{state}"] = share_found(features, own, others)
        rows += [
            (f"{name}: its pictures", subject.pictures),
            *((f"{name}: {s}", p) for s, p in found.items()),
        ]
    kept = {name: latent_features(draw(captions), vae) for name, draw in draws.items()}
    for name, features in kept.items():
        result[f"named_{name}"] = share_named(features, captions, others, collection.captions)
        if name != "before":
            result[f"drift_{name}"] = drift(kept["before"], features)
    rows += [(f"other captions: {name}", draws[name](captions)) for name in ("before", "merged")]
    shown = [(label, nearest_levels(pixels.clamp(-1, 1)).byte().cpu()) for label, pixels in rows]
    sheet = make_sheet(shown, min_cell=64)
    result["pictures"] = str(sheet.save(run.folder / "samples" / "concepts.png"))
    return result


def _changes(second: Mapping[str, Any]) -> dict[str, Any]:
    changes = {"data.concepts": second["concepts"], "model.modifier_tokens": "auto", "model.phrases": "auto"}
    own = {key: value for key, value in second.items() if key != "concepts"}
    return changes | {f"model.{key}": value for key, value in own.items()}


def _subject(run: MeasuredRun) -> Subject:
    dataset: Any = run.dataset()
    pairs = [dataset.fetch(index) for index in range(len(dataset.instances))]
    return Subject(torch.stack([pair["pixels"] for pair in pairs]), [pair["captions"] for pair in pairs])


def _samples(subject: Subject, base: Draw, taught: Draw, merged: Draw, repeats: int) -> dict[str, Tensor]:
    prompts = [prompt for prompt in subject.prompts for _ in range(repeats)]
    classes = [prompt for prompt in subject.class_prompts for _ in range(repeats)]
    return {"before": base(classes), "after": taught(prompts), "merged": merged(prompts)}


def _base_draw(base: str, run: MeasuredRun, seed: int) -> Draw:
    parts, sampler = load_parts(base), _sampler(run)
    diffusion = schedule_from(parts.scheduler)

    def draw(prompts: Sequence[str]) -> Tensor:
        return sample_prompts(parts, diffusion, prompts, _streams(len(prompts), seed), sampler=sampler)

    return draw


def _task_draw(task: Any, seed: int) -> Draw:
    def draw(prompts: Sequence[str]) -> Tensor:
        conditions = task.conditions(len(prompts), prompt=list(prompts), any_prompt=True)
        pixels: Tensor = task.sample(task.model, conditions, _streams(len(prompts), seed))
        return pixels

    return draw


def _merged_task(base: str, concept: Path, run: MeasuredRun) -> ConceptTask:
    return ConceptTask(custom_diffusion(base, concept=str(concept)), sampler=_sampler(run))


def _sampler(run: MeasuredRun) -> dict[str, Any]:
    return {} if run.plan.sampler is None else run.plan.sampler.section()


def _streams(num: int, seed: int) -> SampleStreams:
    return SampleStreams.from_seeds(seed, "sample", positions=range(num))


def _written(run: MeasuredRun) -> Path:
    path: Path = run.folder / "concept.safetensors"
    task: Any = run.task()
    task.export(_fresh(path))
    return path


def _fresh(path: Path) -> Path:
    """The same path, free to write: a report may be made again."""
    path.unlink(missing_ok=True)
    return path


def _gallery(section: Mapping[str, Any]) -> Any:
    arguments = dict(section)
    return DATASETS.get(arguments.pop("name"))(**arguments)


def _pixels(dataset: Any) -> Tensor:
    return torch.stack([dataset.fetch(index)["pixels"] for index in range(len(dataset))])
