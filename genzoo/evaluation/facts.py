"""What a number depends on, in a few words each: weights, guidance, sampler, precision, held-out loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from genzoo.evaluation.result import EvaluationResult


def facts_of(result: EvaluationResult) -> dict[str, str]:
    """Name -> words, in the order in which they are shown; only what the result states."""
    made = result.sampling
    found = {
        "weights": _joined(made.get("weights"), made.get("average"), none=("none", "as stored")),
        "checkpoint": _checkpoint(made.get("checkpoint")),
        "guidance": _guidance(made),
        "sampler": _joined(made.get("sampler"), _counted(made.get("steps"), "steps")),
        "precision": _joined(made.get("precision")),
        "samples": _joined(_counted(result.generated.get("num"), ""), _named("seed", made.get("seed"))),
        "reference": _joined(result.reference.get("name"), _counted(result.reference.get("num"), "")),
        "held-out loss": _held_out(result.beside.get("held_out")),
    }
    return {name: words for name, words in found.items() if words}


def facts_apart(results: Sequence[EvaluationResult]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Facts in which results differ, name -> words of each ("-" where one says nothing), and those of all."""
    each = [facts_of(result) for result in results]
    names = dict.fromkeys(name for one in each for name in one)
    told = {name: [one.get(name, "-") for one in each] for name in names}
    common = {name: words[0] for name, words in told.items() if len(set(words)) == 1}
    return {name: words for name, words in told.items() if name not in common}, common


def grouped_lines(lines: Mapping[str, Sequence[str]]) -> list[str]:
    """Lines of labels, those that several labels share said once: "a, b: line", and "all: line"."""
    by_line: dict[str, list[str]] = {}
    for label, each in lines.items():
        for line in dict.fromkeys(each):
            by_line.setdefault(line, []).append(label)
    everyone = len(lines) if len(lines) > 1 else 0
    return [
        f"{'all' if len(labels) == everyone else ', '.join(labels)}: {line}"
        for line, labels in by_line.items()
    ]


def made_text(result: EvaluationResult) -> str:
    """How the samples were made, in one line; empty where nothing is said of it."""
    told = {name: words for name, words in facts_of(result).items() if name not in ("samples", "reference")}
    told.pop("held-out loss", None)
    return ", ".join(f"{name} {words}" for name, words in told.items())


def _joined(*parts: Any, none: tuple[str, ...] = ()) -> str:
    return ", ".join(str(part) for part in parts if part not in (None, "", *none))


def _checkpoint(name: Any) -> str:
    """ "step 500" of step_00000500; other names as they are."""
    said = str(name or "")
    digits = said.removeprefix("step_")
    return f"step {int(digits):,}" if digits != said and digits.isdecimal() else said


def _counted(value: Any, what: str) -> str:
    known = isinstance(value, int) and not isinstance(value, bool)
    return f"{value:,} {what}".strip() if known else ""


def _named(name: str, value: Any) -> str:
    return "" if value is None else f"{name} {value}"


def _guidance(made: Mapping[str, Any]) -> str:
    """The scale, and whatever else is said of guidance, such as the interval that it holds in."""
    scale = made.get("guidance_scale")
    if scale is None:
        return ""
    others = {name: value for name, value in made.items() if name.startswith("guidance_")}
    more = [
        f"{name.removeprefix('guidance_')} {value}"
        for name, value in others.items()
        if name != "guidance_scale" and value is not None
    ]
    return _joined("none" if scale == 1 else scale, *([] if scale == 1 else more))


def _held_out(loss: Any) -> str:
    if not isinstance(loss, Mapping) or "loss" not in loss:
        return ""
    return with_error(loss, "loss")


def with_error(values: Mapping[str, float], name: str) -> str:
    """A value, and its standard error where that is known."""
    error = values.get(f"{name}_se")
    return f"{values[name]:.4g}" + ("" if error is None else f" ± {error:.2g}")
