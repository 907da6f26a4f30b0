"""Whatever takes a run takes it by its folder, its exported file, the name it ships under, and as a copy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import genzoo
from genzoo.api.recipes.sections import InitFrom
from genzoo.api.runs.open_run import open_run
from genzoo.api.runs.warm_start import warm_start_model
from genzoo.api.sampling.other_runs import with_tasks
from genzoo.assets import asset
from genzoo.assets.shipped import shipped_at
from genzoo.core.errors import GenzooError, UsageError, WeightsError
from genzoo.core.registry import MODELS
from genzoo.families.car.weights.loading import read_tree
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights
from genzoo.pretrained.prompts import load_prompt_encoder
from genzoo.pretrained.text_to_image import load_parts

SHIPPED = "assets:var_emoji"
FILE = asset("weights/var_emoji/model.safetensors")


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """The shipped VAR by its name, its folder, its file, and a copy of the folder."""
    copy = shutil.copytree(FILE.parent, tmp_path / "pushed")
    return {"name": SHIPPED, "folder": str(FILE.parent), "file": str(FILE), "copy": str(copy)}


WAYS = ("name", "folder", "file", "copy")


@pytest.mark.parametrize("way", WAYS)
def test_a_run_is_opened(places: dict[str, str], way: str) -> None:
    run = open_run(places[way])
    assert run.recipe.data["model"]["name"] == "var"
    assert genzoo.load_run(places[way]).step == run.step


@pytest.mark.parametrize("way", WAYS)
def test_a_model_begins_with_it(places: dict[str, str], way: str) -> None:
    expected = load_file(FILE)
    section = dict(open_run(SHIPPED).recipe.data["model"])
    model = MODELS.get(section.pop("name"))(**section)
    fates = warm_start_model(model, InitFrom(path=places[way]))
    assert list(fates) == [places[way]]
    found = model.state_dict()
    copied = [fate.target for fate in fates[places[way]] if fate.source and fate.target]
    assert "head.weight" in copied
    assert all(torch.equal(found[name], expected[name].to(found[name])) for name in copied)


def test_a_recipe_begins_with_what_ships(tmp_path: Path) -> None:
    small = ("train.steps=1", "train.batch_size=2", "preview.every=0", "train.num_workers=0")
    recipe = genzoo.load_recipe("var_emoji", [f"init_from.path={SHIPPED}", "held_out=null", *small])
    run = genzoo.train(recipe, output=tmp_path / "run")
    fates = json.loads((run.folder / "init_from.json").read_text())
    assert any(fate["target"] == "head.weight" and fate["source"] for fate in fates[SHIPPED])


def test_a_text_to_image_model_goes_on_from_the_base_that_ships(tmp_path: Path) -> None:
    section = {**genzoo.load_recipe("text_to_image_emoji").data["model"], "in_channels": 4, "input_size": 8}
    model = MODELS.get(section.pop("name"))(**section)
    place = "assets:text_to_image_emoji"
    fates = warm_start_model(model, InitFrom(path=place))[place]
    fresh = [fate.target for fate in fates if fate.source is None]
    assert fresh == []
    base = load_parts(place)
    for name, value in base.text_encoders[0].state_dict().items():
        assert torch.equal(model.state_dict()[f"text_encoder.{name}"], value), name
    assert torch.equal(model.unet.conv_in.weight, base.unet.conv_in.weight)


def test_the_folder_of_a_packed_base_is_a_base() -> None:
    folder, name = asset("weights/text_to_image_emoji"), "assets:text_to_image_emoji"
    one, other = load_prompt_encoder(folder), load_prompt_encoder(name)
    assert torch.equal(*(each.encode(["a cat"])[0].rows for each in (one, other)))
    found, expected = BaseWeights(folder), BaseWeights(name)
    assert list(found) == list(expected)
    assert torch.equal(found[found.key_values[0]], expected[found.key_values[0]])


def test_a_model_without_blocks_refuses_what_has_nothing_of_it() -> None:
    with pytest.raises(WeightsError, match="nothing of the Linear can start from these weights"):
        warm_start_model(torch.nn.Linear(2, 3), InitFrom(path=SHIPPED))


def test_a_step_of_what_has_one_is_refused() -> None:
    section = dict(open_run(SHIPPED).recipe.data["model"])
    model = MODELS.get(section.pop("name"))(**section)
    with pytest.raises(UsageError, match="has no checkpoints"):
        warm_start_model(model, InitFrom(path=SHIPPED, checkpoint=3))


class TakesOthers:
    run_options = ("others",)


def test_options_of_sampling_open_it_too(places: dict[str, str]) -> None:
    task: object = TakesOthers()
    found = with_tasks(task, {"others": [*places.values()]}, device="cpu")  # type: ignore[arg-type]
    assert list(found["others"]) == [*places.values()]
    weights = [other.model.state_dict()["head.weight"] for other in found["others"].values()]
    assert all(torch.equal(one, weights[0]) for one in weights)


@pytest.mark.parametrize("way", WAYS)
def test_weights_of_a_base_are_read(places: dict[str, str], way: str) -> None:
    tree, expected = read_tree(places[way]), load_file(FILE)
    assert torch.equal(tree["head.weight"], expected["head.weight"])


def test_folders_of_others_do_not_ship(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "card.json").write_text("{}")
    assert shipped_at(tmp_path / "mine") is None
    assert shipped_at(FILE.parent) == SHIPPED


def test_a_run_without_a_checkpoint_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    shutil.copy(FILE.parent / "recipe.yaml", folder)
    with pytest.raises(GenzooError, match="has no checkpoint yet"):
        genzoo.load_run(folder).sample(num=1)
