"""A recipe read once, into typed records: every section is checked and built here, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from genzoo.api.recipes.check import named_problems, read_record, with_optimizer
from genzoo.api.recipes.ports import port_problems
from genzoo.api.recipes.sections import Evaluation, HeldOut, InitFrom, Preview, Sampling
from genzoo.core.claims import is_name
from genzoo.core.errors import RecipeError, did_you_mean
from genzoo.core.node import Node, node_of
from genzoo.core.recipe import Recipe
from genzoo.core.registry import TASKS, default_of
from genzoo.core.signatures import Problem, parameters
from genzoo.training.config import TrainConfig

NEEDED = ("task", "model", "data")
SECTIONS = (
    *("name", "task", "model", "init_from", "data", "codec", "sampler", "optim", "train"),
    *("preview", "held_out", "evaluation", "report"),
)


@dataclass(frozen=True)
class RunPlan:
    """What a recipe says.

    recipe: its text, which runs keep.   model: may hold arguments that say `auto`, until they are resolved.
    sampler: without what every sampler has, which is `sampling`.   train: None in a recipe that only samples.
    """

    recipe: Recipe
    task: Node
    model: Node
    data: Node
    codec: Node | None
    sampler: Node | None
    sampling: Sampling
    optim: Node
    train: TrainConfig | None
    preview: Preview | None
    held_out: HeldOut | None
    evaluation: Evaluation | None
    init_from: InitFrom | None
    report: tuple[Node, ...]

    @property
    def seed(self) -> int:
        """Of the training, the initial weights included."""
        return 0 if self.train is None else self.train.seed

    def with_model(self, arguments: Mapping[str, Any], origin: str) -> RunPlan:
        """The plan with arguments of its model set, in the recipe's text too.   origin: whence they are."""
        recipe = self.recipe.replaced({f"model.{name}": value for name, value in arguments.items()}, origin)
        model = Node(self.model.name, {**self.model.arguments, **arguments})
        return replace(self, recipe=recipe, model=model)


def plan_of(recipe: Recipe, *, but: Sequence[str] = ()) -> RunPlan:
    """What a recipe says. Raises one RecipeError with everything that is wrong, or with every `???`.

    but: sections that may still hold `???`, because they are not used.
    """
    made = _read(recipe)
    missing = [key for key in recipe.missing() if key.partition(".")[0] not in but]
    if missing:
        given = " ".join(f"{key}=..." for key in missing)
        raise RecipeError(
            f"{recipe.source}: {', '.join(missing)}: you have to give this value", fix=f"add {given}"
        )
    return made


def check_recipe(recipe: Recipe) -> list[str]:
    """Raise one RecipeError with everything that is wrong; return the keys that only the user can fill in."""
    _read(recipe)
    return recipe.missing()


def variant(recipe: Recipe, name: str, changes: Mapping[str, Any]) -> Recipe:
    """The recipe under another name with other settings (dotted keys), without previews and report."""
    quiet = {"preview.every": 0} if recipe.data.get("preview") else {}
    settings = {**changes, **quiet, "name": name, "report": []}
    return recipe.replaced(settings, f"variant {name} of {recipe.name}")


def prediction_of(recipe: Recipe) -> str:
    """What a model was trained to predict; the recipe may name things that are no longer there."""
    task = recipe.section("task")
    usual = default_of(TASKS, str(task.get("name")), "prediction")
    return str(task.get("prediction", usual or "noise"))


def prompts_of(recipe: Recipe) -> list[str]:
    """The captions that the task samples by default; one empty one where it has none."""
    return list(recipe.section("task").get("prompts", [""]))


def task_name(recipe: Recipe) -> str:
    """Which task a recipe names, whether it is known or not."""
    return str(recipe.section("task").get("name"))


def steps_of(recipe: Recipe) -> int | None:
    """Steps of the training; None where the recipe has none."""
    return recipe.section("train").get("steps")


def codec_section(recipe: Recipe) -> Mapping[str, Any]:
    """The section `codec` as it is written; empty where there is none."""
    found = recipe.data.get("codec")
    return found if isinstance(found, Mapping) else {}


def _read(recipe: Recipe) -> RunPlan:
    data = recipe.data
    problems = [*_outline_problems(data), *named_problems(data), *port_problems(data)]
    records: dict[str, Any] = {}
    for key, (node, record) in _plain(data).items():
        records[key], found = read_record(key, node, record)
        problems += found
    sampler, sampling = _split(data.get("sampler"))
    records["sampling"], found = read_record("sampler", sampling, Sampling)
    problems += found
    _refuse(recipe, problems)
    named = {key: node_of(data[key]) if data.get(key) else None for key in (*NEEDED, "codec")}
    return RunPlan(
        recipe,
        **named,  # type: ignore[arg-type]
        **records,
        sampler=node_of(sampler) if sampler else None,
        optim=node_of(with_optimizer(data.get("optim") or {})),
        report=tuple(node_of(section) for section in data.get("report") or ()),
    )


def _plain(data: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The sections that name no factory, and the record of each."""
    records = {
        "train": TrainConfig,
        "preview": Preview,
        "held_out": HeldOut,
        "evaluation": Evaluation,
        "init_from": InitFrom,
    }
    return {key: (data.get(key), record) for key, record in records.items()}


def _split(section: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sampler section in two: what the sampler takes, and what every sampler has beside it."""
    if not isinstance(section, Mapping):
        return {}, {}
    shared = parameters(Sampling)
    # a value of the wrong type was found by the check of the whole section
    ours = {key: value for key, value in section.items() if key in shared and isinstance(value, int)}
    return {key: value for key, value in section.items() if key not in shared}, ours


def _outline_problems(data: Mapping[str, Any]) -> Iterator[Problem]:
    for key in data:
        if key not in SECTIONS:
            hint = _sections_with(key, data) or did_you_mean(key, SECTIONS)
            hint = hint or f"a recipe has {', '.join(SECTIONS)}"
            yield Problem(key, f"there is no section {key!r}; {hint}")
    if not isinstance(data.get("name", "run"), str):
        yield Problem("name", f"must be text, not {data['name']!r}")
    elif data.get("name") is not None and not is_name(data["name"]):
        yield Problem("name", f"names a folder below runs/, and {data['name'][:80]!r} is no such name")
    for key in NEEDED:
        if data.get(key) is None:
            yield Problem(key, "a recipe needs this section")


def _sections_with(key: str, data: Mapping[str, Any]) -> str:
    """'did you mean train.steps?' for a setting of some section that is given without it."""
    written = {section: set(node) for section, node in data.items() if isinstance(node, Mapping)}
    written["train"] = {*written.get("train", ()), *parameters(TrainConfig)}
    found = [section for section in ("train", *SECTIONS) if key in written.get(section, ())]
    return (
        f"did you mean {' or '.join(f'{section}.{key}' for section in dict.fromkeys(found))}?"
        if found
        else ""
    )


def _refuse(recipe: Recipe, problems: Sequence[Problem]) -> None:
    if problems:
        lines = list(dict.fromkeys(f"{recipe.origin(p.key)}: {p.key}: {p.message}" for p in problems))
        count = f"{recipe.source}: {len(lines)} problems\n" if len(lines) > 1 else ""
        raise RecipeError(count + "\n".join(lines))
