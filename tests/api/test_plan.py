"""A recipe is read once, into records; what every sampler has is told apart from the sampler's own."""

import ast
import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from recipe_cases import ROOT, TINY

from genzoo.api.recipes.plan import check_recipe, plan_of, variant
from genzoo.api.recipes.sections import Evaluation, InitFrom, Preview, Sampling
from genzoo.api.training.train import build_trainer
from genzoo.core.errors import RecipeError
from genzoo.core.node import Node
from genzoo.core.recipe import load_recipe, recipe_from
from genzoo.training.config import TrainConfig


def tiny(**sections: Any) -> dict[str, Any]:
    return copy.deepcopy(TINY) | sections


def test_every_section_becomes_a_record() -> None:
    recipe = recipe_from(
        tiny(
            init_from={"path": "runs/a", "checkpoint": 3},
            evaluation={"every": 2, "protocol": "quick-pixels", "num": 7},
            codec={"name": "vqvae", "weights": "assets:vqvae_emoji"},
        )
    )
    plan = plan_of(recipe)
    assert plan.recipe is recipe
    assert plan.codec == Node("vqvae", {"weights": "assets:vqvae_emoji"})
    assert plan.task == Node("latent_diffusion", {"label_dropout": 0.1, "loss": {"name": "noise_mse"}})
    assert plan.model.name == "dit"
    assert plan.data == Node("digits")
    assert plan.sampler == Node("ddim", {"steps": 3, "guidance_scale": 1.5})
    assert plan.sampling == Sampling(block_size=4)
    assert plan.optim == Node("adamw", {"lr": 1e-3})
    assert plan.train == TrainConfig(**TINY["train"])
    assert plan.preview == Preview(every=3, num=5)
    assert plan.evaluation == Evaluation(every=2, protocol="quick-pixels", num=7)
    assert plan.init_from == InitFrom(path="runs/a", checkpoint=3)
    assert plan.report == (Node("sample_grid", {"rows": 2, "columns": 3}),)


def test_what_a_recipe_leaves_out_has_its_default() -> None:
    data = {key: value for key, value in TINY.items() if key in ("task", "model", "data")}
    plan = plan_of(recipe_from(data))
    assert (plan.sampler, plan.sampling, plan.train, plan.preview) == (None, Sampling(), None, None)
    assert (plan.optim, plan.report, plan.seed) == (Node("adamw"), (), 0)


def test_a_record_is_built_once_on_the_way_to_the_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []
    for record in (TrainConfig, Preview, Sampling):
        check = record.__post_init__

        def counted(self: Any, check: Any = check) -> None:
            built.append(type(self).__name__)
            check(self)

        monkeypatch.setattr(record, "__post_init__", counted)
    trainer, plan = build_trainer(recipe_from(TINY), output=tmp_path / "run")
    assert sorted(built) == ["Preview", "Sampling", "TrainConfig"]
    assert trainer.config is plan.train


def test_facts_are_set_in_the_plan_and_in_its_text(tmp_path: Path) -> None:
    _, plan = build_trainer(recipe_from(TINY), output=tmp_path / "run")
    known = {"num_classes": 10, "input_size": 8, "in_channels": 1}
    assert plan.model.arguments.items() >= known.items()
    assert plan.recipe.data["model"].items() >= known.items()
    assert plan_of(plan.recipe) == plan


@pytest.mark.parametrize(
    ("sampler", "words"),
    [
        ({"block_size": 0}, "sampler.block_size: must be at least 1"),
        ({"block_size": "big"}, "sampler.block_size: must be a whole number"),
        ({"block_size": True}, "sampler.block_size: must be a whole number"),
        ({"blok_size": 3}, "did you mean 'block_size'"),
    ],
)
def test_the_block_size_is_checked_with_the_sampler(sampler: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        check_recipe(recipe_from(tiny(sampler=TINY["sampler"] | sampler)))
    assert "problems" not in str(caught.value)


def test_a_recipe_that_only_samples_cannot_be_trained(tmp_path: Path) -> None:
    recipe = recipe_from({key: value for key, value in TINY.items() if key != "train"})
    with pytest.raises(RecipeError, match="train: a recipe needs this section to be trained"):
        build_trainer(recipe, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_variant_has_neither_report_nor_previews() -> None:
    plan = plan_of(variant(recipe_from(TINY), "wide", {"model.hidden_size": 48}))
    assert plan.recipe.name == "wide"
    assert plan.model.arguments["hidden_size"] == 48
    assert plan.report == ()
    assert plan.preview is not None
    assert plan.preview.every == 0
    bare = plan_of(variant(recipe_from(tiny(preview=None)), "bare", {}))
    assert bare.preview is None


def test_a_plan_cannot_be_changed() -> None:
    plan = plan_of(recipe_from(TINY))
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.train = None  # type: ignore[misc]


def test_sections_of_recipes_are_known_to_the_recipes_room_alone() -> None:
    """A recipe is asked for a section, by `.section("...")` or `.data[...]`, where it is read."""
    readers = []
    for path in sorted((ROOT / "genzoo").rglob("*.py")):
        name = path.relative_to(ROOT / "genzoo").as_posix()
        if name.startswith("api/recipes/"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args and isinstance(node.func, ast.Attribute):
                literal = isinstance(node.args[0], ast.Constant)
                if node.func.attr == "section" and literal:
                    readers.append(f"{name}:{node.lineno}")
                held = ast.unparse(node.func.value)
                if node.func.attr == "get" and literal and held.endswith("recipe.data"):
                    readers.append(f"{name}:{node.lineno}")
            if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("recipe.data"):
                readers.append(f"{name}:{node.lineno}")
    assert readers == []


@pytest.mark.parametrize("name", ["dim_digits", "matten_moving_digits", "car_canny_emoji"])
def test_quick_starts_are_read_into_records(name: str) -> None:
    plan = plan_of(load_recipe(f"quickstart/{name}"))
    assert plan.train is not None
    assert plan.sampler is not None
    assert "block_size" not in plan.sampler.arguments
    assert plan.sampling.block_size == plan.recipe.data["sampler"].get("block_size", 16)
