"""What the form of Sample holds, checked, as options of sampling and as the command that does the same."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genzoo.app.page import a_number, a_text
from genzoo.core.errors import UsageError

MOST_PICTURES, MOST_STEPS, MOST_SEED = 64, 1000, 2**31 - 1
STRONGEST_GUIDANCE, STRONGEST_CONTROL = 100, 5


@dataclass(frozen=True)
class Wish:
    """What somebody asks for, as the fields of the page hold it."""

    prompt: Any = ""
    negative: Any = ""
    classes: Any = None
    control: str | None = None
    strength: Any = 1.0
    num: Any = 4
    seed: Any = 0
    steps: Any = None
    guidance: Any = None
    sampler: Any = None


def options_of(form: Mapping[str, Any], wish: Wish) -> dict[str, Any]:
    """Options of `Run.sample_to` for what a model's form asks. Raises UsageError for a wrong value."""
    num = a_number(wish.num, "the number of pictures", 1, MOST_PICTURES)
    options: dict[str, Any] = {"num": num, "seed": a_number(wish.seed, "the seed", 0, MOST_SEED)}
    if form["prompt"]:
        options["prompt"] = a_text(wish.prompt, "the prompt").strip()
        if not options["prompt"]:
            raise UsageError("the prompt is empty", fix="say what the picture shows")
    if form["negative"] and a_text(wish.negative, "what to avoid").strip():
        options["negative_prompt"] = str(wish.negative).strip()
    if form["classes"]:
        options |= _labels(form["classes"], wish.classes, num)
    if form["control"] and wish.control is not None:
        options["control"] = wish.control
        options["control_scale"] = a_number(wish.strength, "the strength", 0, STRONGEST_CONTROL, whole=False)
    if form["steps"] is not None:
        options["steps"] = a_number(wish.steps, "steps", 1, MOST_STEPS)
    if form["guidance_scale"] is not None:
        options["guidance_scale"] = a_number(wish.guidance, "guidance", 0, STRONGEST_GUIDANCE, whole=False)
    if wish.sampler and wish.sampler != form["sampler"]:
        if wish.sampler not in list(form["samplers"]):
            raise UsageError("this model has no such sampler", fix="choose one of the list")
        options["sampler"] = wish.sampler
    return options


def command_of(source: str, options: Mapping[str, Any]) -> str:
    """The same on the command line."""
    words = ["genzoo", "sample", source]
    for name, value in options.items():
        if name in ("num", "seed", "prompt"):
            words += [f"--{name}", str(value)]
        elif name == "control":
            words += ["--control", "CONTROL.png"]
        elif name == "class_labels":
            words.append(
                f"class_labels=[{','.join(map(str, value))}]"
                if isinstance(value, list)
                else f"class_labels={value}"
            )
        else:
            words.append(f"{name}={_quoted(value)}")
    return shlex.join(words)


def _labels(names: Sequence[str], chosen: Any, num: int) -> dict[str, Any]:
    """One class for all, or several in turn; every class in turn when none is chosen."""
    if not chosen:
        return {}
    if not isinstance(chosen, list) or any(name not in list(names) for name in chosen):
        raise UsageError("this model has no such class", fix="choose from the list")
    labels = [names.index(name) for name in chosen]
    return {"class_labels": labels[0] if len(labels) == 1 else [labels[i % len(labels)] for i in range(num)]}


def _quoted(value: Any) -> str:
    """As a value of KEY=VALUE, which is read as YAML."""
    return (
        "'" + value.replace("'", "''") + "'"
        if isinstance(value, str) and not value.isidentifier()
        else str(value)
    )
