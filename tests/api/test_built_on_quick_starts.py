"""Recipes of users that stand on a shipped one: other data, another sampler, a smaller model."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import genzoo
from genzoo.core.recipe import load_recipe

TINY = """base: quickstart/{name}
name: tiny
model: {{depth: 2, hidden_size: 32, patch_size: 4, d_state: 4}}
data: {{base: data/image_folder, image_size: 16, horizontal_flip: false}}
sampler: {{base: samplers/dpm_solver_pp_25, steps: 4, block_size: 16}}
optim: {{base: optim/adamw, lr: 1e-3}}
train: {{steps: 2, batch_size: 4, checkpoint_every: 2, log_every: 1}}
preview: null
report: []
"""


@pytest.mark.parametrize("name", ["dim_digits", "dim_digits_paper"])
def test_a_folder_of_pictures_in_place_of_the_digits(name: str, tmp_path: Path) -> None:
    for index in range(6):
        path = tmp_path / "photos" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + index, 18), (40 * index, 90, 10)).save(path)
    (tmp_path / "tiny.yaml").write_text(TINY.format(name=name))
    recipe = load_recipe(tmp_path / "tiny.yaml", [f"data.root={tmp_path / 'photos'}"])
    run = genzoo.train(recipe, output=tmp_path / "run")
    assert run.step == 2
    assert run.sample(num=2, device="cpu").pixels.shape == (2, 3, 16, 16)
