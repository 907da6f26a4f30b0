"""Sweeps: which combinations, an ordinary run for each, a table with the spread over seeds, and going on."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from recipe_cases import TINY

from genzoo.api.training import sweep as sweep_module
from genzoo.api.training.sweep import plan_sweep, run_sweep
from genzoo.api.training.sweep_grid import trials, values_of
from genzoo.api.training.sweep_table import claim_sweep, measures_of, outcomes, table
from genzoo.cli import main
from genzoo.core.errors import UsageError
from genzoo.core.recipe import recipe_from


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(recipe_from(TINY).to_yaml())
    return str(path)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1e-4,3e-4", ["1e-4", "3e-4"]),
        ("[1,2]", ["[1,2]"]),
        ("[1,2],[3]", ["[1,2]", "[3]"]),
        ("{a: 1, b: 2}", ["{a: 1, b: 2}"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ("one", ["one"]),
    ],
)
def test_commas_inside_brackets_and_quotes_belong_to_the_value(text: str, values: list[str]) -> None:
    assert values_of(text) == values


def test_every_combination_is_tried_once() -> None:
    found = trials(["optim.lr=1e-4,3e-4", "train.steps=7", "train.seed=0,1,2"])
    assert [one.folder for one in found] == [
        *("lr=1e-4_seed=0", "lr=1e-4_seed=1", "lr=1e-4_seed=2"),
        *("lr=3e-4_seed=0", "lr=3e-4_seed=1", "lr=3e-4_seed=2"),
    ]
    assert {one.group for one in found} == {"lr=1e-4", "lr=3e-4"}
    assert found[1].overrides == ["train.steps=7", "optim.lr=1e-4", "train.seed=1"]


def test_folders_are_names_whatever_the_value() -> None:
    found = trials(["data.root=/a/b,../c", "model.name=x,y"])
    assert all("/" not in one.folder and ".." not in one.folder for one in found)
    assert len({one.folder for one in found}) == 4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optim.lr=1e-4"], "nothing varies"),
        (["optim.lr=1,2", "optim.lr=3"], "given twice"),
        (["optim.lr=1,,2"], "empty or repeated"),
        (["optim.lr=1,1"], "empty or repeated"),
        ([f"a.b{i}=0,1" for i in range(10)], "more than 1,000"),
    ],
)
def test_what_is_no_sweep_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        trials(overrides)


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Exit code, and what stands on both streams."""
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out + said.err


def test_a_misspelt_setting_is_found_before_anything_runs(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = call(capsys, "sweep", recipe, "optim.lrr=1,2", "--output", str(tmp_path / "s"))
    assert code == 2
    assert "lrr" in said
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
def test_a_sweep_trains_compares_and_goes_on(recipe: str, tmp_path: Path, monkeypatch: Any) -> None:
    folder = tmp_path / "sweep"
    words = ["optim.lr=1e-3,2e-3", "train.steps=3", "train.checkpoint_every=3", "report=[]"]
    planned = plan_sweep(recipe, words, folder)
    assert run_sweep(recipe, planned[:1]) == {"lr=1e-3": 0}
    started: list[str] = []
    start = sweep_module._start
    monkeypatch.setattr(
        sweep_module, "_start", lambda r, one, j, w: started.append(one.folder.name) or start(r, one, j, w)
    )
    codes = run_sweep(recipe, planned, jobs=2)
    assert started == ["lr=2e-3"]
    assert codes == {"lr=1e-3": 0, "lr=2e-3": 0}
    found = outcomes(planned, codes)
    assert [one.group for one in found] == ["lr=1e-3", "lr=2e-3"]
    assert found[0].values["loss"] != found[1].values["loss"]


def run_folder(folder: Path, losses: list[float], accuracy: float) -> Path:
    folder.mkdir(parents=True)
    rows = [{"step": step, "loss": loss} for step, loss in enumerate(losses, 1)]
    rows.insert(1, {"step": 1, "held_out/loss": 9.0})
    rows.append({"step": len(losses), "held_out/loss": 2.5})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 4, "lo')
    report = {
        "metrics": [{"name": "judge", "result": {"accuracy": accuracy, "grid": "a.png", "exact": True}}]
    }
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def test_measures_are_the_last_losses_and_the_report(tmp_path: Path) -> None:
    found = measures_of(run_folder(tmp_path / "run", [100.0] * 18 + [1.0, 3.0], 0.5))
    assert found == {"loss": 2.0, "held_out/loss": 2.5, "judge.accuracy": 0.5}
    assert measures_of(tmp_path / "nothing") == {}


def test_the_table_has_medians_ranges_and_what_failed(recipe: str, tmp_path: Path) -> None:
    planned = plan_sweep(recipe, ["optim.lr=1e-3,2e-3", "train.seed=0,1,2"], tmp_path / "sweep")
    for index, one in enumerate(planned[:5]):
        run_folder(one.folder, [float(index)], 0.25)
    codes = {one.folder.name: 0 for one in planned[:5]} | {planned[5].folder.name: 5}
    lines = table(outcomes(planned, codes))
    assert lines[0].split() == ["loss", "held_out/loss", "judge.accuracy"]
    assert lines[1].startswith("lr=1e-3  1 (0 to 2)")
    assert lines[2].startswith("lr=2e-3  3.5 (3 to 4)")
    assert lines[3] == "failed: lr=2e-3_seed=2: exit code 5"


def test_the_command_lists_and_tells_what_failed(
    recipe: str, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sweep", recipe, "train.seed=0,1", "--output", str(tmp_path / "sweep")]
    code, said = call(capsys, *words, "--list")
    assert code == 0
    assert "train.seed=1" in said
    assert not (tmp_path / "sweep").exists()
    monkeypatch.setattr(sweep_module, "_start", lambda *given: Ended(4))
    monkeypatch.setattr(sweep_module, "POLL_SECONDS", 0)
    code, said = call(capsys, *words)
    assert code == 4
    assert "exit code 4" in said


class Ended:
    """A process that has ended."""

    def __init__(self, code: int) -> None:
        self.returncode = code

    def poll(self) -> int:
        return self.returncode


@pytest.mark.parametrize(("log", "refused"), [("sweep.log", False), ("notes.txt", True)])
def test_a_sweep_that_was_stopped_goes_on_with_other_seeds(
    recipe: str, tmp_path: Path, log: str, refused: bool
) -> None:
    folder = tmp_path / "runs"
    (folder / "seed=0").mkdir(parents=True)
    (folder / "seed=0" / log).write_text("")  # its sweep.json is written when all runs have ended
    planned = plan_sweep(recipe, ["train.seed=4,5"], folder)
    with pytest.raises(UsageError, match="no place for a sweep") if refused else nullcontext():
        claim_sweep(folder, planned)
