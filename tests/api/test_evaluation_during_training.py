"""A recipe's `evaluation:` section: judged on the way, recorded everywhere, and the best checkpoint kept."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from recipe_cases import TINY

from genzoo.api.evaluation.evaluate_run import evaluate_run
from genzoo.api.recipes.plan import check_recipe
from genzoo.api.recipes.sections import Evaluation
from genzoo.api.rerun import compare_losses, rerun_recipe
from genzoo.api.run import load_run, train
from genzoo.api.training import evaluation_hook
from genzoo.api.training.best import keep_best, result_file
from genzoo.api.training.evaluation_hook import EvaluationHook
from genzoo.api.training.train import build_trainer
from genzoo.core.errors import RecipeError, UsageError, WeightsError
from genzoo.core.processes import World
from genzoo.core.recipe import Recipe, recipe_from
from genzoo.core.registry import DATASETS
from genzoo.core.run_folder import read_metrics
from genzoo.evaluation.result import load_result
from genzoo.training.hook import Hook

EVALUATION = {"every": 2, "protocol": "quick-pixels", "num": 8, "keep_best": "pixel_kid", "steps": 2}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path_factory.getbasetemp() / "evaluation_cache"))


def tiny(**evaluation: Any) -> Recipe:
    data = copy.deepcopy(TINY)
    data["train"] = {**data["train"], "steps": 4, "checkpoint_every": 2, "keep_last": 1, "tensorboard": True}
    data["evaluation"] = {**EVALUATION, **evaluation}
    data.pop("report", None)
    return recipe_from(data)


def test_it_is_recorded_in_every_place_and_the_best_checkpoint_stays(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(tiny(), output=folder)
    results = {step: load_result(result_file(folder, step)) for step in (2, 4)}
    rows = {
        row["step"]: row for row in read_metrics(folder / "metrics.jsonl") if "evaluation/pixel_kid" in row
    }
    assert {step: row["evaluation/pixel_kid"] for step, row in rows.items()} == {
        step: result.metrics["pixel_kid"] for step, result in results.items()
    }
    assert results[4].sampling["weights"] in ("ema", "raw")
    assert results[4].generated["num"] == 8
    best = json.loads((folder / "best" / "best.json").read_text())
    values = {step: result.metrics["pixel_kid"] for step, result in results.items()}
    assert best["step"] == min(values, key=values.__getitem__)
    assert [path.name for path in (folder / "best").glob("step_*")] == [best["checkpoint"]]
    assert any(b"evaluation/pixel_kid" in path.read_bytes() for path in (folder / "tensorboard").iterdir())
    # what was kept can be sampled
    run = load_run(folder)
    result = evaluate_run(
        run, protocol="quick-pixels", num=8, checkpoint=folder / "best" / best["checkpoint"], steps=2
    )
    assert result.metrics["pixel_kid"] == pytest.approx(best["value"], rel=1e-4, abs=1e-6)


class StopAt(Hook):
    """Dies at a step, before the hooks behind it."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_checkpoint(self, trainer: Any, path: Path) -> None:
        if trainer.step == self.step:
            raise RuntimeError("killed")


def test_an_evaluation_missed_by_an_interruption_is_made_up_for(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(tiny(), output=whole)
    with pytest.raises(RuntimeError, match="killed"):
        train(tiny(), output=broken, hooks=[StopAt(2)])
    assert not result_file(broken, 2).exists()
    train(tiny(), output=broken)
    for step in (2, 4):
        assert load_result(result_file(broken, step)).metrics == load_result(result_file(whole, step)).metrics


def test_evaluating_does_not_change_the_training(tmp_path: Path) -> None:
    losses = []
    for name, recipe in (("with", tiny()), ("without", recipe_from({**tiny().data, "evaluation": None}))):
        train(recipe, output=tmp_path / name)
        rows = read_metrics(tmp_path / name / "metrics.jsonl")
        losses.append([row["loss"] for row in rows if "loss" in row])
    assert losses[0] == losses[1]


def test_missing_weights_stop_the_run_before_its_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("GENZOO_WEIGHTS", raising=False)
    with pytest.raises(WeightsError, match="weights-inception"):
        train(tiny(protocol="adm-50k", keep_best=None), output=tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").glob("step_*"))


def test_mistakes_in_the_section_are_found_with_the_others() -> None:
    with pytest.raises(RecipeError) as error:
        check_recipe(tiny(every=0, protocol="quick-pixles"))
    assert "evaluation.every: must be at least 1" in str(error.value)
    assert "evaluation.protocol: there is no protocol 'quick-pixles'" in str(error.value)
    with pytest.raises(RecipeError, match="did you mean"):
        check_recipe(tiny(protocoll="quick"))


def test_the_best_needs_a_checkpoint_at_the_same_step(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="multiple of"):
        train(tiny(every=3), output=tmp_path / "run")


@pytest.mark.parametrize(
    ("metric", "better", "values", "best"),
    [
        ("lite0_kid", None, [3.0, 1.0, 2.0], 2),
        ("lite0_precision", None, [0.3, 0.9, 0.5], 2),
        ("mine", "higher", [1.0, 2.0, 3.0], 3),
    ],
)
def test_best_is_lowest_or_highest(
    tmp_path: Path, metric: str, better: Any, values: list[float], best: int
) -> None:
    chosen = Evaluation(keep_best=metric, better=better)
    for step, value in enumerate(values, start=1):
        checkpoint = tmp_path / "checkpoints" / f"step_{step:08d}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "model.safetensors").write_text(str(step))
        keep_best(tmp_path, checkpoint, step, chosen, {metric: value})
    kept = [path.name for path in (tmp_path / "best").glob("step_*")]
    assert kept == [f"step_{best:08d}"]
    assert (tmp_path / "best" / kept[0] / "model.safetensors").read_text() == str(best)
    with pytest.raises(UsageError, match="no metric"):
        keep_best(tmp_path, checkpoint, 9, chosen, {"other": 1.0})


def test_the_reference_is_the_images_behind_cached_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = DATASETS.get("digits")()
    cached = SimpleNamespace(images=pictures, bind_codec=print)
    trainer: Any = SimpleNamespace(
        dataset=cached,
        average=None,
        device="cpu",
        world=World.single(),
        config=SimpleNamespace(max_bad=0),
        task=SimpleNamespace(),
    )
    given: dict[str, Any] = {}
    monkeypatch.setattr(evaluation_hook, "evaluate", lambda images, **options: given.update(options))
    EvaluationHook(Evaluation())._result(trainer, torch.zeros(2, 3, 4, 5, dtype=torch.uint8), 7)
    assert given["reference"].dataset is pictures
    assert (given["sampling"]["weights"], given["sampling"]["average"]) == ("raw", "none")


@pytest.mark.parametrize(("recipe", "hooks"), [(recipe_from(TINY), 0), (tiny(), 1)], ids=["without", "with"])
def test_no_section_no_hook(recipe: Recipe, hooks: int, tmp_path: Path) -> None:
    trainer, _ = build_trainer(recipe, output=tmp_path)
    assert sum(isinstance(hook, EvaluationHook) for hook in trainer.hooks) == hooks


def test_rerun_compares_the_losses_of_a_run_with_evaluations(tmp_path: Path) -> None:
    run = train(tiny(keep_best=None), output=tmp_path / "run")
    comparison = compare_losses(run, rerun_recipe(run, output=tmp_path / "again"))
    assert (comparison.steps, comparison.largest) == (4, 0.0)
