"""Samples for the page: which form a model asks for, the pictures, and controls out of photographs."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from genzoo.api.run import Run, load_run
from genzoo.core.contracts import able
from genzoo.core.contracts.tasks import ExtractsControls, SharesSamplingOptions
from genzoo.core.errors import UsageError
from genzoo.core.files import write_file
from genzoo.core.reading import read_record
from genzoo.core.registry import MODELS, SAMPLERS, TASKS
from genzoo.core.signatures import parameters
from genzoo.data.image_decode import load_image
from genzoo.data.transforms import to_tensor
from genzoo.pictures.pixels import nearest_levels, png, to_pil

SHOWN_CLASSES = 1000
KEPT = 2  # models that stay in memory
_OPENED: dict[str, Run] = {}


def describe(source: str, progress: Any = None) -> dict[str, Any]:
    """What a form for this model holds.

    prompt, negative, control, clips: whether there is such a thing.   classes: names by label, or None.
    steps, guidance_scale: what the recipe says; None where sampling has no such option.   samplers: others
    that fit.
    """
    run = opened(source)
    plan = run.plan
    task: Any = TASKS.get(plan.task.name)
    asked = parameters(task.conditions)
    section = {} if plan.sampler is None else dict(plan.sampler.section())
    how = {**parameters(task.sample, keyword_only=True), **_sampler_options(task, section.get("name"))}
    return {
        "prompt": "prompt" in asked,
        "prompts": [text for text in plan.task.arguments.get("prompts") or [] if text],
        "negative": "negative_prompt" in asked,
        "control": "control" in asked and bool(plan.task.arguments.get("control")),
        "extractor": _name_of(plan.task.arguments.get("control")),
        "classes": _classes(run) if "class_labels" in asked else None,
        "clips": "clip_denoiser" in MODELS.entry(plan.model.name).port,
        "steps": section.get("steps", 50) if "steps" in how else None,
        "guidance_scale": section.get("guidance_scale", 1.0) if "guidance_scale" in how else None,
        "sampler": section.get("name"),
        "samplers": _samplers(plan.task.name) if section else [],
        "step": run.step,
    }


def sample(
    source: str, folder: str, options: Mapping[str, Any], progress: Callable[[int, int], None]
) -> dict[str, Any]:
    """Pictures in a new folder, as `genzoo sample` makes them: {"files", "settings"}."""
    run = opened(source)
    clip = "clip_denoiser" in MODELS.entry(run.plan.model.name).port
    films: dict[str, Any] = {"clip_format": "mp4" if importlib.util.find_spec("av") else "gif"}
    given = {name: value for name, value in options.items() if value is not None}
    run.sample_to(folder, progress=progress, **(films if clip else {}), **given)
    found = [path for path in sorted(Path(folder).iterdir()) if path.stem.isdecimal() and path.is_file()]
    return {"files": [str(path) for path in found], "settings": read_record(Path(folder) / "samples.json")}


def control(source: str, picture: str, target: str, drawn: bool = False, progress: Any = None) -> str:
    """A control picture for a model out of a photograph, or out of black lines on white.

    drawn: the lines become white on black, as extractors make them. Returns the path of the PNG.
    """
    image = load_image(Path(picture))
    pixels = _square(image)
    if drawn:
        ink = -pixels.mean(0, keepdim=True).expand(3, -1, -1)
        if float(ink.max()) < 0:
            raise UsageError("nothing is drawn yet", fix="draw dark lines, or choose a photograph")
        made = ink
    else:
        extracting = able(opened(source).task(), ExtractsControls)
        if extracting is None or extracting.extract is None:
            raise UsageError("this model follows no control")
        made = extracting.extract(pixels[None])[0]
    return str(write_file(target, png(to_pil(nearest_levels(made).byte()))))


def opened(source: str) -> Run:
    """The run, file or shipped weights; the last ones stay open as long as nothing newer was saved."""
    run, known = load_run(source), _OPENED.pop(source, None)
    if known is not None and (known.step, known.checkpoint()) == (run.step, run.checkpoint()):
        run = known
    _OPENED[source] = run
    while len(_OPENED) > KEPT:
        _OPENED.pop(next(iter(_OPENED)))
    return run


def _square(image: Any) -> torch.Tensor:
    """(3, s, s) in [-1, 1] of the middle square."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return to_tensor(image.crop((left, top, left + side, top + side)).convert("RGB"))


def _classes(run: Run) -> list[str] | None:
    names = run.class_names()
    if names is None:
        count = run.plan.model.arguments.get("num_classes")
        names = [str(label) for label in range(count)] if isinstance(count, int) and count > 0 else None
    return None if names is None else list(names)[:SHOWN_CLASSES]


def _samplers(task: str) -> list[str]:
    takes = TASKS.entry(task).takes.get("sampler", ())
    return [name for name in SAMPLERS.names() if SAMPLERS.entry(name).fits(takes)]


def _sampler_options(task: Any, name: object) -> dict[str, Any]:
    sharing = able(task, SharesSamplingOptions)
    found: dict[str, Any] = {}
    for factory in () if sharing is None else sharing.sampling_options:
        found |= parameters(factory)
    return found | (parameters(SAMPLERS.get(name), keyword_only=True) if isinstance(name, str) else {})


def _name_of(control: Any) -> str | None:
    name = control.get("name") if isinstance(control, Mapping) else control
    return name if isinstance(name, str) else None
