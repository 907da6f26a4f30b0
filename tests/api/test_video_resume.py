"""Runs of clips continue exactly: with stills beside the clips, and after a warm start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from recipe_cases import TINY

from genzoo.api.run import Run, train
from genzoo.core.checkpoint import load_checkpoint
from genzoo.core.recipe import recipe_from

MODEL: dict[str, Any] = {
    "name": "matten", "variant": 3, "depth": 2, "hidden_size": 16, "num_heads": 2, "patch_size": 4,
    "d_state": 2, "learn_sigma": False, "num_classes": "auto", "num_frames": "auto", "input_size": "auto",
    "in_channels": "auto",
}  # fmt: skip
DATA = {"name": "moving_digits", "image_size": 12, "num_frames": 3, "use_image_num": 2}


def clips(steps: int, **changes: Any) -> dict[str, Any]:
    short = {**TINY["train"], "steps": steps, "batch_size": 4, "checkpoint_every": 1}
    return {
        **TINY, "name": "clips", "model": MODEL, "data": DATA, "train": short, "preview": None,
        "report": None, **changes,
    }  # fmt: skip


def outcome(run: Run) -> tuple[Any, list[float]]:
    """The newest checkpoint's tensors, and the loss of every step."""
    content = load_checkpoint(run.checkpoint())
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    return (content.weights, content.ema), [line["loss"] for line in lines if "loss" in line]


def assert_same(first: Run, second: Run) -> None:
    (tensors, losses), (other_tensors, other_losses) = outcome(first), outcome(second)
    assert losses == other_losses
    assert len(losses) == 4
    for mine, theirs in zip(tensors, other_tensors, strict=True):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_a_run_of_clips_with_stills_resumes_exactly(tmp_path: Path) -> None:
    straight = train(recipe_from(clips(4)), output=tmp_path / "straight")
    train(recipe_from(clips(2)), output=tmp_path / "cut")
    assert_same(straight, train(recipe_from(clips(4)), output=tmp_path / "cut"))


def test_a_warm_start_is_not_repeated_on_resume(trained: Run, tmp_path: Path) -> None:
    warm = {"init_from": {"path": str(trained.folder)}, "model": {**MODEL, "hidden_size": 24}}
    straight = train(recipe_from(clips(4, **warm)), output=tmp_path / "straight")
    train(recipe_from(clips(2, **warm)), output=tmp_path / "cut")
    assert_same(straight, train(recipe_from(clips(4, **warm)), output=tmp_path / "cut"))
