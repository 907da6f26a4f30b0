"""Whole recipes against the code they name."""

import copy
from pathlib import Path
from typing import Any

import pytest
from recipe_cases import ROOT, SHIPPED, TINY

from genzoo.api.recipes.plan import check_recipe, plan_of
from genzoo.core.errors import RecipeError
from genzoo.core.recipe import load_recipe, recipe_from


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    missing = check_recipe(load_recipe(path))
    # what only the user has
    known = {"data.controls", "task.control.weights", "task.perceptual.weights"}
    known |= {"data.root", "data.concepts", "codec.weights", "model.var_weights", "model.base_model"}
    assert set(missing) <= known


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_are_named_after_their_file_and_say_how_to_run_them(path: Path) -> None:
    recipe = load_recipe(path)
    header = path.read_text().split("\nbase:")[0].split("\nname:")[0]
    assert recipe.name == path.stem
    assert f"genzoo train {path.stem}" in header or f"genzoo train {path.relative_to(ROOT)}" in header
    for key in ("steps", "batch_size", "seed", "checkpoint_every", "keep_last", "precision"):
        assert key in recipe.data["train"], f"train.{key}"


def test_planted_errors_are_all_listed_at_once() -> None:
    data = copy.deepcopy(TINY)
    data["modle"] = {}
    data["model"]["dept"] = data["model"].pop("depth")
    data["train"] |= {"steps": "many", "batchsize": 3}
    data["optim"]["lrr"] = 1
    data["sampler"] |= {"guidance_scle": 1.5, "eta": "high"}
    data["task"]["loss"] = {"name": "nose_mse"}
    data["data"]["split"] = 3
    data["preview"]["num"] = 0
    data["report"].append({"name": "sample_gird"})
    expected = [
        "modle", "model.dept", "model.depth", "train.steps", "train.batchsize", "optim.lrr", "sampler.eta",
        "sampler.guidance_scle", "task.loss.name", "data.split", "preview.num", "report.1.name",
    ]  # fmt: skip
    with pytest.raises(RecipeError) as caught:
        check_recipe(recipe_from(data, source="planted.yaml"))
    lines = str(caught.value).splitlines()
    assert lines[0] == f"planted.yaml: {len(expected)} problems"
    assert sorted(line.split(": ")[1] for line in lines[1:]) == sorted(expected)
    assert all(line.startswith("planted.yaml: ") for line in lines)
    text = str(caught.value)
    for suggestion in (
        "'model'",
        "'depth'",
        "'batch_size'",
        "'lr'",
        "'guidance_scale'",
        "'noise_mse'",
        "'sample_grid'",
    ):
        assert f"did you mean {suggestion}" in text


def _changed(**sections: Any) -> dict[str, Any]:
    return copy.deepcopy(TINY) | sections


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (_changed(model=3), "model: must be a mapping"),
        (_changed(model={"depth": 3}), "model.name: needs the name of a model"),
        (_changed(task=None), "task: a recipe needs this section"),
        (_changed(report={"name": "sample_grid"}), "report: must be a list"),
        (_changed(report=[3]), "report.0: must be a mapping"),
        (_changed(train=[1]), "train: must be a mapping"),
        (_changed(name=3), "name: must be text"),
        (_changed(train=TINY["train"] | {"steps": 0}), "train.steps: must be at least 1"),
        (_changed(task=TINY["task"] | {"model": 3}), "task.model: latent_diffusion has no argument 'model'"),
        (_changed(sampler=TINY["sampler"] | {"denoise": 1}), "sampler.denoise: ddim has no argument"),
        (
            _changed(task=TINY["task"] | {"loss": {"name": "hybrid", "prediction": "x_0"}}),
            "task.loss.prediction",
        ),
        (
            _changed(sampler=TINY["sampler"] | {"block_size": "big"}),
            "sampler.block_size: must be a whole number",
        ),
        (_changed(data={"name": "digits", "num_classes": "auto"}), "data.num_classes"),
    ],
)
def test_wrong_sections_are_explained(data: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check_recipe(recipe_from(data))
    assert words in str(caught.value)


def test_missing_values_are_asked_for_by_key() -> None:
    recipe = recipe_from(_changed(data={"name": "image_folder", "root": "???"}))
    assert check_recipe(recipe) == ["data.root"]
    with pytest.raises(RecipeError, match=r"data\.root=\.\.\."):
        plan_of(recipe)
    assert plan_of(recipe, but=("data",)).data.arguments == {"root": "???"}


def test_extractors_are_checked_like_sections() -> None:
    for override, words in {
        "task.control=cany": "did you mean 'canny'",
        "task.control={name: canny, lwo: 3}": "did you mean 'low'",
        "task.control={low: 3}": "needs the name of a control",
    }.items():
        with pytest.raises(RecipeError, match=words):
            check_recipe(load_recipe("car_canny", [override]))
