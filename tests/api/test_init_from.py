"""`init_from:` in a recipe: a run of clips that begins with an image run's weights."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from recipe_cases import TINY

from genzoo.api.run import Run, train
from genzoo.api.training.train import build_trainer
from genzoo.core.checkpoint import load_checkpoint
from genzoo.core.errors import RecipeError, UsageError, WeightsError
from genzoo.core.recipe import Recipe, recipe_from


def clips(source: Any, **changes: Any) -> dict[str, Any]:
    model = {**TINY["model"], "name": "latte", "depth": 4, "num_frames": "auto"}
    section = {"init_from": {"path": source}} if source else {}
    return {
        **TINY,
        **section,
        "name": "warm",
        "model": model,
        "data": {"name": "moving_digits", "num_frames": 2},
        "train": {**TINY["train"], "steps": 1, "checkpoint_every": 1, "batch_size": 4},
        "preview": None,
        "report": None,
        **changes,
    }


@pytest.fixture
def images(trained: Run) -> Run:
    """The tiny run is a DiT of two blocks: as many as the clips' model has spatial ones."""
    return trained


def test_a_run_of_clips_begins_with_an_image_run(images: Run, tmp_path: Path) -> None:
    trainer, _ = build_trainer(recipe_from(clips(str(images.folder))), output=tmp_path / "warm")
    stored = load_checkpoint(images.checkpoint())
    weights = trainer.task.model.state_dict()
    for ours, theirs in {0: 0, 2: 1}.items():
        key = "attn.qkv.weight"
        assert torch.equal(weights[f"blocks.{ours}.{key}"], stored.ema[f"blocks.{theirs}.{key}"])
    assert not weights["blocks.1.adaLN_modulation.1.weight"].any()


def test_the_fate_of_every_tensor_is_kept_in_the_run(images: Run, tmp_path: Path) -> None:
    run = train(recipe_from(clips([str(images.folder)])), output=tmp_path / "warm")
    (rows,) = json.loads((run.folder / "init_from.json").read_text()).values()
    by_target = {row["target"]: row for row in rows}
    assert by_target["blocks.2.mlp.fc1.weight"]["source"] == "blocks.1.mlp.fc1.weight"
    assert by_target["temp_embed"]["why"] == "fixed table, built anew"
    # a finished source may move away: the run goes on, and samples, without it
    moved = clips(str(tmp_path / "gone"), train={**clips(None)["train"], "steps": 1})
    trainer, _ = build_trainer(recipe_from(moved), output=run.folder, resume="auto")
    assert trainer.fit("auto").step == 1
    assert run.sample(num=1).pixels.shape == (1, 2, 1, 16, 16)


def test_wrong_sources_stop_before_training(images: Run, tmp_path: Path) -> None:
    mamba = {**clips(None)["model"], "name": "dim_video", "d_state": 4}
    del mamba["num_heads"]
    with pytest.raises(WeightsError, match="has mamba blocks; the source has attention"):
        build_trainer(recipe_from(clips(str(images.folder), model=mamba)), output=tmp_path / "a")
    with pytest.raises(UsageError, match="not a run folder"):
        build_trainer(recipe_from(clips(str(tmp_path))), output=tmp_path / "b")
    other = {**clips(None)["task"], "prediction": "x_0"}
    with pytest.raises(WeightsError, match="predicts noise is no beginning for one that predicts x_0"):
        build_trainer(recipe_from(clips(str(images.folder), task=other)), output=tmp_path / "e")
    bad = clips(None, init_from={"path": "x", "weights": "mean"})
    with pytest.raises(RecipeError, match=r"init_from\.weights"):
        build_trainer(recipe_from(bad), output=tmp_path / "c")
    with pytest.raises(RecipeError, match=r"init_from\.pth.*path"):
        build_trainer(recipe_from(clips(None, init_from={"pth": "x"})), output=tmp_path / "d")
    assert not list(tmp_path.iterdir())


def flow(path: str | None = None, **changes: Any) -> Recipe:
    """A tiny recipe of flow matching, which predicts velocities when nothing else is said."""
    task = {"name": "flow_matching", "loss": "velocity_mse"}
    data = copy.deepcopy(TINY) | {"task": task, "sampler": {"name": "flow_euler", "steps": 2}, "report": []}
    data["train"] |= {"steps": 1}
    data["preview"] = None
    return recipe_from(data | ({} if path is None else {"init_from": {"path": path}}) | changes)


def test_what_a_source_predicts_is_its_own_default_where_its_recipe_is_silent(
    images: Run, tmp_path: Path
) -> None:
    first = train(flow(), output=tmp_path / "first")
    build_trainer(flow(str(first.folder)), output=tmp_path / "second")
    with pytest.raises(WeightsError, match="predicts noise is no beginning for one that predicts velocity"):
        build_trainer(flow(str(images.folder)), output=tmp_path / "third")
