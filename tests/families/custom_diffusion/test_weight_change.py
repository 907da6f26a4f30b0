"""All weights trained, as the paper's baseline: what moved, by kind of layer, and what such a run is not."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from families.custom_diffusion.conftest import entry
from families.custom_diffusion.test_concept_training import SMALL, Listed

import genzoo
from genzoo.api.run import Run
from genzoo.core.errors import UsageError
from genzoo.core.recipe import load_recipe
from genzoo.families.custom_diffusion.weight_change import layer_changes


def trained(base: Path, concepts: Path, folder: Path, *changes: str) -> Run:
    places = [f"concepts={concepts}", f"base_model={base}"]
    recipe = load_recipe("custom_diffusion_all_weights", [*places, *SMALL, *changes])
    return genzoo.train(recipe, output=folder)


def reported(run: Run) -> dict[str, Any]:
    (metric,) = json.loads((run.folder / "report.json").read_text())["metrics"]
    assert metric["name"] == "weight_change"
    return dict(metric["result"])


@pytest.fixture(scope="module")
def run(sd: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("all")
    (folder / "cat.json").write_text(json.dumps([entry(pictures, 1, "cat")]))
    return trained(sd, folder / "cat.json", folder / "run")


def test_a_layer_is_compared_over_all_its_parameters() -> None:
    before = {
        "mid.attn2.to_k.weight": torch.full((2, 2), 3.0),
        "conv.weight": torch.tensor([3.0]),
        "conv.bias": torch.tensor([4.0]),
        "down.attn1.to_q.weight": torch.tensor([1.0]),
        "norm.bias": torch.zeros(3),
    }
    after = {name: value + 1 for name, value in before.items()}
    found = {change.layer: change for change in layer_changes(before, after)}
    assert set(found) == {"mid.attn2.to_k", "conv", "down.attn1.to_q"}  # |w| = 0 has no ratio
    assert found["conv"].change == pytest.approx(math.sqrt(2) / 5)
    assert (found["conv"].kind, found["conv"].parameters) == ("other layers", 2)
    assert found["mid.attn2.to_k"].change == pytest.approx(1 / 3)
    assert [found[name].kind for name in ("mid.attn2.to_k", "down.attn1.to_q")] == [
        "cross-attention", "self-attention",
    ]  # fmt: skip


def test_all_kinds_move_and_are_reported_and_drawn(run: Run) -> None:
    report = reported(run)
    kinds = ("cross_attention", "self_attention", "other_layers")
    assert all(report[f"{kind}_change"] > 0 for kind in kinds)
    assert sum(report[f"{kind}_share"] for kind in kinds) == pytest.approx(1)
    rows = json.loads((run.folder / "weight_change.json").read_text())
    mean = [row["change"] for row in rows if row["kind"] == "cross-attention"]
    assert report["cross_attention_change"] == pytest.approx(sum(mean) / len(mean))
    assert "cross-attention" in (run.folder / "weight_change.svg").read_text()


def test_keys_and_values_alone_leave_the_rest_at_0(sd: Path, listed: Listed, tmp_path: Path) -> None:
    run = trained(sd, listed("cat"), tmp_path / "run", "model.freeze_mode=crossattn_kv", "train.steps=2")
    report = reported(run)
    assert report["cross_attention_change"] > 0
    assert report["self_attention_change"] == report["other_layers_change"] == 0


def test_without_matplotlib_it_says_so(
    sd: Path, listed: Listed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    run = trained(sd, listed("cat"), tmp_path / "run", "train.steps=1")
    report = reported(run)
    assert report["picture"] == "not drawn: pip install 'genzoo[plots]'"
    assert not (run.folder / "weight_change.svg").exists()


def test_it_samples_and_resumes_but_is_no_concept(run: Run, sd: Path, listed: Listed, tmp_path: Path) -> None:
    trained(sd, listed("cat"), tmp_path / "run", "train.steps=2")
    resumed = trained(sd, listed("cat"), tmp_path / "run")
    samples = [each.sample(prompt="photo of a <new1> cat", seed=3).pixels for each in (run, resumed)]
    assert torch.equal(*samples)
    with pytest.raises(UsageError, match="changed all weights"):
        run.task().model.delta()


def test_a_mode_that_does_not_exist_names_those_that_do(sd: Path, listed: Listed, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="crossattn_kv, crossattn, all"):
        trained(sd, listed("cat"), tmp_path / "run", "model.freeze_mode=everything")
