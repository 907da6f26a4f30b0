"""A run stands for its recipe wherever a recipe is looked at, by whatever name one has for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import genzoo
from genzoo.api.pipelines.write import export_pipeline
from genzoo.api.recipes.models import count
from genzoo.api.recipes.named import recipe_named, recipe_of_run
from genzoo.api.run import Run
from genzoo.api.runs.conversion import export
from genzoo.cli import main
from genzoo.core.errors import RecipeError


def said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    found = capsys.readouterr()
    assert not stop.value.code, found.err
    return found.out


def test_a_run_is_shown_and_validated_as_its_recipe(trained: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(trained.folder)
    by_file = json.loads(said(["show", f"{folder}/recipe.yaml", "--json", "--plain"], capsys))
    assert json.loads(said(["show", folder, "--json", "--plain"], capsys)) == by_file
    assert "lr: 0.25" in said(["show", folder, "optim.lr=0.25"], capsys)
    assert said(["validate", folder], capsys) == f"{folder}: ok\n"


def test_what_was_exported_tells_its_recipe_too(trained: Run, tmp_path: Path) -> None:
    export(trained, tmp_path / "m.safetensors")
    export_pipeline(trained, tmp_path / "pipeline")
    for place in ("m.safetensors", "pipeline"):
        found = recipe_named(str(tmp_path / place))
        assert found.name == trained.recipe.name
        assert found.data["model"] == trained.recipe.data["model"]


def test_the_model_of_a_run_is_counted(trained: Run, capsys: pytest.CaptureFixture[str]) -> None:
    model = trained.task(device="cpu").model
    found = json.loads(said(["count", str(trained.folder), "--json"], capsys))
    assert found["model"] == str(trained.folder)
    assert found["num_params"] == sum(weight.numel() for weight in model.parameters())


def test_a_text_to_image_base_is_counted_by_its_own_name(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(said(["count", "assets:text_to_image_emoji", "--json"], capsys))
    model = genzoo.load_run("assets:text_to_image_emoji").task(device="cpu").model
    assert found["num_params"] == sum(weight.numel() for weight in model.parameters())
    assert min(found[f"macs_{kind}"] for kind in ("linear", "conv", "attention")) > 0


@pytest.mark.filterwarnings("error")
def test_a_file_is_counted_without_a_warning(trained: Run, tmp_path: Path) -> None:
    made = export(trained, tmp_path / "m.safetensors")
    model = trained.task(device="cpu").model
    assert isinstance(model, torch.nn.Module)
    assert count(str(made))["num_params"] == count(model)["num_params"]


def test_a_run_is_no_recipe_for_a_training(trained: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", str(trained.folder)])
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert "is a run, not a recipe" in told
    assert f"genzoo rerun {trained.folder}" in told


def test_a_recipe_comes_before_a_run_of_its_name(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dim_emoji").mkdir()
    content = (trained.folder / "recipe.yaml").read_text(encoding="utf-8")
    (tmp_path / "dim_emoji" / "recipe.yaml").write_text(content, encoding="utf-8")
    assert recipe_named("dim_emoji").name == "dim_emoji"
    assert recipe_named(str(tmp_path / "dim_emoji")).name == trained.recipe.name


@pytest.mark.parametrize("name", ["nosuch", "a\0b", "a" * 5000, ""], ids=["absent", "nul", "long", "empty"])
def test_what_is_no_run_has_no_recipe(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert recipe_of_run(name) is None
    with pytest.raises(RecipeError):
        recipe_named(name)
