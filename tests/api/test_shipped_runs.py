"""Weights that ship are runs as far as sampling, judging, showing and opening go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import genzoo
from genzoo.api.recipes.show import find
from genzoo.api.runs.shipped_run import open_shipped
from genzoo.assets import asset
from genzoo.assets.shipped import card, shipped_names
from genzoo.cli import main
from genzoo.core.errors import UsageError, WeightsError

NAMES = shipped_names()


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))


def test_every_folder_of_weights_has_a_card_and_is_listed() -> None:
    assert sorted(path.name for path in asset("weights").iterdir() if path.is_dir()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_shipped_weights_say_what_made_them_and_know_their_data(name: str) -> None:
    run = open_shipped(f"assets:{name}")
    told = card(name)
    assert run.recipe.name == told.recipe == find(f"assets:{name}", []).name
    assert run.plan.data.name == ("moving_emoji" if name == "matten_emoji" else "emoji")
    assert len(run.dataset()) > 1000
    assert run.folder == Path("runs") / f"assets_{name}"
    assert told.about
    assert any(digit in told.measured for digit in "0123456789")


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_that_ships_with_weights_is_that_of_its_name(name: str) -> None:
    """Its model and data are what `genzoo train NAME` takes, so the weights can be made again."""
    kept, named = find(f"assets:{name}", []).data, genzoo.load_recipe(card(name).recipe).data
    assert (kept["model"], kept["data"]) == (named["model"], named["data"])


def test_listing_says_size_recipe_and_quality(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["list", "weights", "--json"])
    listed = json.loads(capsys.readouterr().out)["weights"]
    assert list(listed) == [f"assets:{name}" for name in NAMES]
    assert "4.1 MB; recipe var_emoji_moved; category asked for" in listed["assets:var_emoji"]


def test_a_name_is_sampled_like_a_run(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["sample", "assets:var_emoji", "--class", "Animals & Nature", "--num", "2"])
    assert not stop.value.code
    (made,) = (tmp_path / "runs/assets_var_emoji/samples").iterdir()
    rows = json.loads((made / "samples.json").read_text(encoding="utf-8"))
    assert [row["class_labels"] for row in rows["samples"]] == [1, 1]
    assert rows["classes"]["1"] == "Animals & Nature"
    assert (made / "000001.png").is_file()


def test_clips_that_ship_are_sampled_by_motion_and_name(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["sample", "assets:matten_emoji", "--class", "right red apple", "--num", "1", "steps=2"])
    assert not stop.value.code
    (made,) = (tmp_path / "runs/assets_matten_emoji/samples").iterdir()
    rows = json.loads((made / "samples.json").read_text(encoding="utf-8"))
    assert rows["classes"]["13"] == "right red apple"
    made_again = genzoo.load_run("assets:matten_emoji").sample(class_labels=[13], steps=2)
    assert made_again.pixels.shape == (1, 5, 3, 24, 24)


def test_a_shipped_base_paints_the_prompts_of_its_recipe() -> None:
    run = genzoo.load_run("assets:text_to_image_emoji")
    made = run.sample(num=1, steps=2)
    assert made.conditions["prompts"] == ["a 3d emoji of a red apple"]
    assert made.pixels.shape == (1, 3, 32, 32)


def test_shipped_weights_are_judged_against_their_own_data(tmp_path: Path) -> None:
    judged = ["evaluate", "assets:var_emoji", "--protocol", "quick-pixels", "--num", "5"]
    with pytest.raises(SystemExit) as stop:
        main([*judged, "--no-intervals", "--output", "result.json"])
    assert not stop.value.code
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert result["reference"]["name"] == "emoji"
    assert result["sampling"]["run"] == "var_emoji_moved"


def test_an_unknown_name_is_told_what_ships(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["sample", "assets:var_emojy"])
    assert stop.value.code == 4
    said = capsys.readouterr().err
    assert "did you mean 'var_emoji'" in said
    assert ", ".join(NAMES) in said
    with pytest.raises(WeightsError, match="no weights 'nothing' ship"):
        genzoo.load_run("assets:nothing")
    with pytest.raises(UsageError, match="without data of yours"):
        genzoo.load_run("assets:var_emoji", ["data.root=elsewhere"])
