"""Runs as data: what is read of a run, how often, and files that are opened without a training."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from recipe_cases import TINY

from genzoo.api.run import Run, load_run
from genzoo.core import checkpoint_manifest
from genzoo.core.errors import UsageError
from genzoo.core.recipe import MISSING, Recipe, recipe_from
from genzoo.core.registry import SOURCES, Entry

SIZES = {"num_classes": 10, "input_size": 8, "in_channels": 1}


def open_seed(path: Path, *, quality: int = 3) -> Recipe | None:
    """A source whose files hold the seed of the weights; more quality takes more steps."""
    if path.suffix != ".seed" or not path.is_file():
        return None
    recipe: dict[str, Any] = {**TINY, "data": {"name": "image_folder", "root": MISSING}, "report": []}
    recipe["model"] = TINY["model"] | SIZES
    recipe["train"] = TINY["train"] | {"seed": int(path.read_text())}
    recipe["sampler"] = TINY["sampler"] | {"steps": quality}
    return recipe_from(recipe, source=str(path))


@pytest.fixture
def seed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(SOURCES._entries, "seed", Entry(open_seed))
    path = tmp_path / "weights.seed"
    path.write_text("5")
    return path


def test_looking_at_a_run_and_sampling_it_hashes_each_file_once(
    trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    digest = checkpoint_manifest.file_digest
    monkeypatch.setattr(
        checkpoint_manifest, "file_digest", lambda path: (hashed.append(path.name), digest(path))[1]
    )
    run = load_run(trained.folder)
    assert run.step == 6
    run.sample(num=2)
    run.sample(num=3, seed=1)
    assert run.step == 6
    assert sorted(hashed) == ["ema.safetensors", "model.safetensors", "optimizer.safetensors", "state.json"]


def test_a_file_is_sampled_and_judged_like_a_run(seed_file: Path, tmp_path: Path) -> None:
    run = load_run(seed_file)
    assert (run.step, run.folder) == (0, tmp_path / "weights")
    pictures = run.sample_to(tmp_path / "pictures", num=6, seed=1)
    result = run.evaluate("quick-pixels", num=6, reference=pictures)
    assert result.sampling["checkpoint"] == "weights.seed"
    assert result.sampling["weights"] == "raw"
    with pytest.raises(UsageError, match="no data to compare with"):
        run.evaluate("quick-pixels", num=6)
    with pytest.raises(UsageError, match="one kind of weights"):
        run.evaluate("quick-pixels", num=6, reference=pictures, weights="ema")


def test_options_of_the_opener_hold_for_one_call(seed_file: Path) -> None:
    run = load_run(seed_file)
    plain = run.sample(num=2)
    better = run.sample(num=2, quality=5)
    assert not torch.equal(plain.pixels, better.pixels)
    assert torch.equal(run.sample(num=2).pixels, plain.pixels)
    assert torch.equal(run.sample(num=2, quality=5).pixels, better.pixels)
    assert run.recipe.data["sampler"]["steps"] == 3
    assert plain.settings["recipe_sha256"] != better.settings["recipe_sha256"]


def test_samples_of_a_file_that_was_written_anew_are_not_mixed(seed_file: Path, tmp_path: Path) -> None:
    load_run(seed_file).sample_to(tmp_path / "out", num=2)
    known = json.loads((tmp_path / "out/samples.json").read_text())["content_sha256"]
    seed_file.write_text("6")
    with pytest.raises(UsageError, match="content_sha256"):
        load_run(seed_file).sample_to(tmp_path / "out", num=2)
    assert json.loads((tmp_path / "out/samples.json").read_text())["content_sha256"] == known
