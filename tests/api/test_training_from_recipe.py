"""From a recipe to a run folder: facts, checks, report, resume and rerun."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from recipe_cases import TINY

from genzoo.api.recipes.build import build_model, build_task
from genzoo.api.recipes.plan import plan_of
from genzoo.api.rerun import compare_losses, rerun_recipe
from genzoo.api.run import Run, load_run, train
from genzoo.api.runs.run_report import read_report, report_is_current
from genzoo.api.training.train import dry_run
from genzoo.core.checkpoint import load_checkpoint
from genzoo.core.errors import DataError, RecipeError, UsageError
from genzoo.core.recipe import Recipe, recipe_from
from genzoo.core.registry import METRICS, Entry


def tiny(**sections: dict[str, Any]) -> Recipe:
    """The tiny recipe with keys of some sections changed."""
    data = copy.deepcopy(TINY)
    for name, changes in sections.items():
        data[name] = {**data[name], **changes}
    return recipe_from(data)


def test_auto_arguments_come_from_the_data_set() -> None:
    model: Any = build_task(recipe_from(TINY)).model
    assert (model.num_classes, model.in_channels, model.input_size) == (10, 1, 8)
    wider: Any = build_task(tiny(data={"image_size": 16, "channels": 3})).model
    assert (wider.in_channels, wider.input_size) == (3, 16)


def test_initial_weights_depend_on_the_seed_and_leave_the_global_generator_alone() -> None:
    fixed = {"num_classes": 3, "in_channels": 1, "input_size": 8}
    before = torch.get_rng_state()
    first, again, other = (
        build_model(plan_of(tiny(model=fixed, train={"seed": seed}))) for seed in (1, 1, 2)
    )
    assert torch.equal(before, torch.get_rng_state())
    key = "t_embedder.mlp.0.weight"
    assert torch.equal(first.state_dict()[key], again.state_dict()[key])
    assert not torch.equal(first.state_dict()[key], other.state_dict()[key])


def test_a_run_folder_says_everything_about_the_run(trained: Run) -> None:
    folder = trained.folder
    for name in (
        "recipe.yaml",
        "command.txt",
        "env.json",
        "metrics.jsonl",
        "status.json",
        "README.md",
        "report.json",
    ):
        assert (folder / name).is_file(), name
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    assert [path.name for path in sorted((folder / "checkpoints").glob("step_*"))] == [
        "step_00000004",
        "step_00000006",
    ]
    assert "auto" not in (folder / "recipe.yaml").read_text()
    assert trained.recipe.data["model"]["num_classes"] == 10
    card = (folder / "README.md").read_text()
    assert "global batch 12 = 12 per device" in card
    assert "sample_grid" in card
    assert "genzoo sample" in card
    assert trained.step == 6


def test_previews_are_grids_of_the_asked_size(trained: Run) -> None:
    for step in (3, 6):
        with Image.open(trained.folder / f"samples/step_{step:08d}/grid.png") as picture:
            assert picture.size == (3 * 36, 2 * 36)  # five pictures of 8 px, enlarged to 32 and framed


def test_report_is_kept_with_the_step_and_not_measured_twice(
    trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = read_report(trained)
    assert report["step"] == 6
    assert report["metrics"][0]["name"] == "sample_grid"
    assert Path(report["metrics"][0]["result"]["grid"]).is_file()
    assert report_is_current(trained)

    def never(run: Any, *, rows: int = 1, columns: int = 1) -> dict[str, float]:
        raise AssertionError("measured again")

    monkeypatch.setitem(METRICS._entries, "sample_grid", Entry(never))
    train(recipe_from(TINY), output=trained.folder)


def test_training_in_two_parts_equals_training_at_once(trained: Run, tmp_path: Path) -> None:
    short = tiny(train={"steps": 3})
    train(short, output=tmp_path / "parts")
    train(recipe_from(TINY), output=tmp_path / "parts")
    parts = load_checkpoint(tmp_path / "parts/checkpoints/step_00000006")
    whole = load_checkpoint(trained.folder / "checkpoints/step_00000006")
    for ours, theirs in (
        (parts.weights, whole.weights),
        (parts.ema, whole.ema),
        (parts.optimizer, whole.optimizer),
    ):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_rerun_repeats_the_losses_bit_for_bit(trained: Run, tmp_path: Path) -> None:
    again = rerun_recipe(trained, output=tmp_path / "again", steps=4)
    comparison = compare_losses(trained, again)
    assert (comparison.steps, comparison.largest) == (4, 0.0)
    other = train(tiny(train={"seed": 5, "steps": 2}), output=tmp_path / "other")
    assert compare_losses(trained, other).largest > 0


def test_too_few_classes_stop_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="5 classes"):
        train(tiny(model={"num_classes": 5}), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_dry_run_reports_and_writes_nothing(tmp_path: Path) -> None:
    summary = dry_run(recipe_from(TINY), output=tmp_path / "run")
    assert summary.parameters > 0
    assert "global batch 12" in str(summary)
    assert not (tmp_path / "run").exists()


def test_wrong_recipes_stop_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'steps'"):
        train(tiny(train={"stepz": 3}), output=tmp_path / "run")
    with pytest.raises(UsageError, match="not a run folder"):
        load_run(tmp_path)
