"""Studies: what a file says, every shipped one planned, a tiny one run, and the paper beside the numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from recipe_cases import ROOT, TINY

from benchmarks.cases.token_training import COMMON, MODELS, step
from genzoo.api.recipes.models import count
from genzoo.api.training.study.definition import Claim, Study, is_study, read_study
from genzoo.api.training.study.drawing import draw
from genzoo.api.training.study.results import CellResult, as_markdown, results_of, said
from genzoo.api.training.study.run import chosen, plan_study, run_study
from genzoo.api.training.sweep import processor_seconds
from genzoo.api.training.sweep_table import measures_of
from genzoo.cli import main
from genzoo.core.errors import UsageError
from genzoo.core.recipe import recipe_from

SHIPPED_STUDIES = sorted((ROOT / "studies").glob("*.yaml"))
each_study = pytest.mark.parametrize("path", SHIPPED_STUDIES, ids=lambda path: path.stem)

LITTLE = """
title: a little study
paper: none
recipe: RECIPE
settings:
  train: {steps: 2, checkpoint_every: 2, seed: 5}
  report:
    - {name: nearest_neighbour, num: 20, guidance_scale: 1.0}
    - {name: nearest_neighbour, num: 20, guidance_scale: 2.0}
seeds: [3, 4]
measures:
  - [loss, training loss]
  - [nearest_neighbour(guidance_scale=2.0).diversity, diversity]
  - [processor_seconds, processor s]
cells:
  narrow:
    about: as it is
    paper: [[1.5, FID]]
  wide:
    settings:
      model: {hidden_size: 32}
claims:
  - {says: wide is better, better: wide, than: narrow, by: training loss, lower: true}
"""


@pytest.fixture
def little(tmp_path: Path) -> Path:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(recipe_from(TINY).to_yaml())
    study = tmp_path / "little.yaml"
    study.write_text(LITTLE.replace("RECIPE", str(recipe)))
    return study


@each_study
def test_every_cell_of_a_shipped_study_is_a_recipe_that_holds(path: Path, tmp_path: Path) -> None:
    study = read_study(path)
    planned = plan_study(study, tmp_path)
    assert len(planned) == len(study.cells) > 1
    assert [len(one.runs) for one in planned] == [len(study.seeds)] * len(planned)
    recipes = [one.runs[0].recipe.sha256 for one in planned]
    assert len(set(recipes)) == len(recipes), "two cells would train the same"
    assert study.claims
    assert study.paper


@each_study
def test_kept_results_are_of_the_cells_and_measures_that_the_study_has(path: Path) -> None:
    kept = path.with_suffix(".json")
    row = next(
        line for line in (ROOT / "studies/README.md").read_text().splitlines() if f"({path.name})" in line
    )
    assert ("not run" in row) != kept.is_file()
    if not kept.is_file():
        return
    assert f"({path.stem}.md)" in row
    study, content = read_study(path), json.loads(kept.read_text())
    results = [CellResult(**cell) for cell in content["cells"]]
    assert [result.name for result in results] == [cell.name for cell in study.cells]
    assert all(list(result.values) == list(study.measures) for result in results)
    assert path.with_suffix(".md").read_text() == as_markdown(study, results)
    assert path.with_suffix(".svg").read_text() == draw(study, results)


def test_the_benchmark_over_tokens_has_the_models_of_the_study() -> None:
    cells = {
        cell.name: counted(cell.settings) for cell in read_study(ROOT / "studies/dim_against_dit.yaml").cells
    }
    for who, cell in (("dim", "dim"), ("dit", "dit_parameters")):
        settings = {**MODELS[who], **COMMON, "input_size": 8}
        assert count(settings.pop("name"), **settings)["num_params"] == cells[cell]["num_params"]
    step("dit", 16)()
    step("dim", 16)()


def test_what_is_called_equal_is_equal() -> None:
    cells = {
        cell.name: counted(cell.settings) for cell in read_study(ROOT / "studies/dim_against_dit.yaml").cells
    }
    assert cells["dit_parameters"]["params_trainable"] == pytest.approx(
        cells["dim"]["params_trainable"], rel=1e-3
    )
    assert cells["dit_multiply_adds"]["macs"] == pytest.approx(cells["dim"]["macs"], rel=3e-3)


def counted(settings: Sequence[str]) -> dict[str, Any]:
    """Parameters and multiply-adds of a cell on 8 x 8 digits."""
    told = [text.removeprefix("model=") for text in settings if text.startswith("model=")]
    own = {"name": "dim", "depth": 4, "hidden_size": 96, "patch_size": 2, "d_state": 8, "learn_sigma": False}
    model = json.loads(told[0]) if told else own
    return count(model.pop("name"), **{**model, "num_classes": 10, "input_size": 8, "in_channels": 1})


@pytest.mark.parametrize("variant", ["variant_2", "variant_3", "variant_4"])
def test_the_variants_of_matten_have_as_many_parameters(variant: str, tmp_path: Path) -> None:
    study = read_study(ROOT / "studies/matten_variants.yaml")
    planned = {one.cell.name: one.runs[0].recipe.section("model") for one in plan_study(study, tmp_path)}

    def parameters(name: str) -> int:
        model = {**planned[name], "num_frames": 5, "num_classes": 10, "input_size": 12, "in_channels": 1}
        return int(count(model.pop("name"), **model)["params_trainable"])

    assert parameters(variant) == pytest.approx(parameters("variant_1"), rel=1e-3)


def test_settings_of_a_study_are_those_of_its_cells_and_give_way_to_typed_ones(
    little: Path, tmp_path: Path
) -> None:
    planned = plan_study(read_study(little), tmp_path / "s", ["train.steps=3", "train.seed=8"])
    assert [run.folder.name for one in planned for run in one.runs] == ["narrow_seed=8", "wide_seed=8"]
    recipes = [one.runs[0].recipe.data for one in planned]
    assert [recipe["model"]["hidden_size"] for recipe in recipes] == [24, 32]
    assert {(recipe["train"]["steps"], recipe["train"]["seed"]) for recipe in recipes} == {(3, 8)}
    assert [one.cell.name for one in chosen(planned, read_study(little), ["wide"])] == ["wide"]


def test_a_cell_may_stand_on_a_run_that_is_trained_before(tmp_path: Path) -> None:
    study = read_study(ROOT / "studies/car_depth.yaml")
    four = plan_study(study, tmp_path)[1]
    assert four.base is not None
    assert four.base.recipe.data["model"]["depth"] == 4
    assert four.runs[0].recipe.data["model"]["var_weights"] == str(tmp_path / "depth_4_base")
    assert four.every[0] is four.base


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title:", "titel:", "'titel' means nothing here"),
        ("    about:", "    abuot:", "about"),
        ("better: wide", "better: wode", "no cell 'wode'"),
        ("by: training loss", "by: loss", "no measure"),
        ("  wide:", "  -wide:", "no name of a folder"),
        ("[[1.5, FID]]", "[1.5]", "list of \\[value, heading\\]"),
        ("recipe: RECIPE\n", "", "'recipe' is missing"),
    ],
)
def test_what_a_study_cannot_mean_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(LITTLE.replace(old, new, 1))
    with pytest.raises(UsageError, match=message):
        read_study(path)


@pytest.mark.parametrize(
    ("better", "other", "lower", "verdict"),
    [
        ([3.0, 4.0, 5.0], [1.0, 2.0, 2.5], False, "yes: 4 (3 to 5) beside 2 (1 to 2.5)"),
        ([3.0, 4.0, 5.0], [1.0, 2.0, 2.5], True, "no: "),
        ([3.0, 4.0, 5.0], [4.5, 6.0, 7.0], True, "undecided"),
        ([1.0, 2.0], [3.0, 4.0], True, "yes: "),
        ([1.0], [3.0, 4.0], True, "yes, by one seed: 1 beside 3.5 (3 to 4)"),
        ([1.0], [0.5], True, "no, by one seed"),
        ([], [3.0], False, "not run"),
    ],
)
def test_a_sentence_holds_where_the_ranges_lie_apart(
    better: list[float], other: list[float], lower: bool, verdict: str
) -> None:
    results = [CellResult("a", [], {"m": better}), CellResult("b", [], {"m": other})]
    assert said(Claim("a beats b", "a", "b", "m", lower), results).startswith(verdict)


def test_a_sentence_may_be_about_two_measures_of_one_cell() -> None:
    results = [CellResult("a", ["0"], {"with": [0.9], "without": [0.7]})]
    assert said(Claim("it helps", "a", "a", "with", against="without"), results).startswith("yes")


def test_a_cell_that_was_not_run_is_said_to_be_so_and_drawn_empty() -> None:
    study = Study("s", "t", "r", read_study(ROOT / "studies/car_depth.yaml").cells[:2], {"edge F1": "x"})
    results = [
        CellResult("depth_2", ["0", "1"], {"edge F1": [0.25, 0.75]}),
        CellResult("depth_4", [], {"edge F1": []}),
    ]
    text, picture = as_markdown(study, results), draw(study, results)
    assert "| 0.5 (0.25 to 0.75) | 0, 1 |" in text
    assert "| not run | none |" in text
    assert picture.count("<circle") == 2
    assert len(re.findall('class="m"', picture)) == 1
    assert "depth_4" in picture


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


@pytest.mark.slow
def test_a_study_runs_goes_on_and_keeps_its_results(
    little: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, folder, place = read_study(little), tmp_path / "runs", tmp_path / "kept"
    codes = run_study(study, chosen(plan_study(study, folder, ["train.seed=3"]), study, ["narrow"]))
    assert codes == {"narrow_seed=3": 0}
    first = measures_of(folder / "narrow_seed=3")
    assert first["processor_seconds"] == processor_seconds(folder / "narrow_seed=3") > 0
    words = ["sweep", str(little), "--output", str(folder), "--results", str(place)]
    code, out, _ = call(capsys, *words, "--tell", "train.seed=3")
    assert code == 0
    assert "Here: not run" in out
    code, out, err = call(capsys, *words, "train.seed=3")
    assert code == 0
    assert "narrow" not in err, "what is finished is not trained again"
    assert "by one seed" in out
    results = results_of(study, plan_study(study, folder, ["train.seed=3"]))
    assert results[0].values["training loss"] == [first["loss"]]
    assert len(results[1].values["diversity"]) == 1
    assert json.loads((place / "little.json").read_text())["cells"][0]["seeds"] == ["3"]
    assert (place / "little.md").read_text() == out.rstrip("\n") + "\n"
    assert (place / "little.svg").read_text() == draw(study, results)
    written = (place / "little.json").read_bytes()
    code, out, _ = call(
        capsys, "sweep", str(little), "--output", str(tmp_path / "none"), *words[4:], "--tell"
    )
    assert (code, (place / "little.json").read_bytes()) == (0, written), "what was kept stays"
    little.write_text(little.read_text().replace("hidden_size: 32", "hidden_size: 40"))
    code, out, _ = call(
        capsys, "sweep", str(little), "--output", str(tmp_path / "none"), *words[4:], "--tell"
    )
    assert "| not run | not run | none |" in out, "but not for a cell that has changed"


def test_files_of_others_are_not_replaced_and_options_of_studies_belong_to_them(
    little: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "little.md").write_text("mine")
    code, _, err = call(
        capsys, "sweep", str(little), "--tell", "--results", str(tmp_path), "--output", str(tmp_path / "r")
    )
    assert code == 2
    assert "which no study left there" in err
    assert (tmp_path / "little.md").read_text() == "mine"
    code, _, err = call(capsys, "sweep", str(tmp_path / "tiny.yaml"), "optim.lr=1,2", "--cells", "wide")
    assert code == 2
    assert "--cells belongs to studies" in err


@pytest.mark.parametrize(
    ("name", "log", "exit_code"),
    [
        ("narrow_seed=9", "sweep.log", 0),
        ("narrow_seed=9", "notes.txt", 2),  # no study began that one
        ("wode_seed=9", "sweep.log", 2),  # nor has this one such a cell
        ("narrow", "sweep.log", 2),
    ],
)
def test_a_study_goes_on_beside_runs_of_other_seeds(
    little: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, log: str, exit_code: int
) -> None:
    (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "runs" / name / log).write_text("")
    words = ["sweep", str(little), "--tell", "--output", str(tmp_path / "runs"), "train.seed=3"]
    code, _, err = call(capsys, *words)
    assert code == exit_code
    assert ("is no place for a study" in err) == bool(exit_code)


def test_a_study_lists_what_it_would_train(little: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert is_study(little)
    code, out, _ = call(capsys, "sweep", str(little), "--list", "--cells", "wide")
    assert code == 0
    assert [line.partition(":")[0] for line in out.splitlines()] == [
        "runs/study_little/wide_seed=3",
        "runs/study_little/wide_seed=4",
    ]
