"""A folder without classes: recipes that guide by class train, show, judge and sample all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from recipe_cases import TINY

from genzoo.api.run import train
from genzoo.core.errors import RecipeError, UsageError
from genzoo.core.recipe import recipe_from


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    folder, generator = tmp_path / "flat", np.random.default_rng(3)
    folder.mkdir()
    for index in range(5):
        levels = generator.integers(0, 255, (18, 20, 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / f"{index}.png")
    return folder


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    data = {"name": "image_folder", "root": str(folder), "image_size": 8}
    return {**TINY, "data": data, "train": {**TINY["train"], "steps": 3, "batch_size": 4}, **changes}


FLOW = {
    "task": {"name": "flow_matching"},
    "sampler": {"name": "flow_euler", "steps": 3, "guidance_scale": 1.65, "block_size": 4},
}


@pytest.mark.parametrize("changes", [{}, FLOW], ids=["diffusion", "flow"])
def test_a_guided_recipe_trains_previews_reports_and_samples(
    flat: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    run = train(recipe_from(recipe(flat, **changes)), output=tmp_path / "run")
    assert (run.folder / "samples/step_00000003/grid.png").is_file()
    assert (run.folder / "samples/grid.png").is_file()
    assert torch.isfinite(run.sample(num=2).pixels).all()
    # the recipe's scale counts as 1 where there is nothing to guide; one that is asked for is refused
    assert torch.equal(run.sample(num=2).pixels, run.sample(num=2, guidance_scale=1).pixels)
    with pytest.raises(UsageError, match="unconditional"):
        run.sample(num=2, guidance_scale=4)
    assert run.evaluate("quick-pixels", num=4).generated["num"] == 4


@pytest.mark.parametrize("metric", ["nearest_neighbour"])
def test_a_metric_that_needs_classes_says_so_before_the_first_step(
    flat: Path, tmp_path: Path, metric: str
) -> None:
    with pytest.raises(RecipeError, match=f"{metric} cannot judge data without classes"):
        train(recipe_from(recipe(flat, report=[{"name": metric, "num": 4}])), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
