"""Time to quality and sampling steps: what is counted and computed, and cells that go on when stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from benchmarks import readme
from benchmarks.cases import sampling_steps, time_to_quality
from benchmarks.cases.time_to_quality import Change, reached, row, run_cell
from benchmarks.digit_quality import class_energy
from benchmarks.range_chart import Range, ranges
from benchmarks.registry import Case, Options
from benchmarks.run import run_case

NAME = "time_to_quality"
GOOD = {"accuracy": 0.993, "diversity": 0.84, "energy": 0.1}
GOOD |= {f"held_out_{name}": value for name, value in GOOD.items()}
POOR = {**GOOD, "accuracy": 0.5}
TINY = (
    "model.depth=1", "model.hidden_size=16", "train.steps=3", "train.batch_size=2", "train.tensorboard=false",
)  # fmt: skip


def test_energy_distance_is_that_of_the_formula_class_by_class() -> None:
    samples = torch.tensor([[0.0], [2.0], [10.0], [13.0], [11.0]])
    labels = torch.tensor([0, 0, 1, 1, 1])
    real, real_labels = torch.tensor([[1.0], [10.0], [12.0], [5.0]]), torch.tensor([0, 1, 1, 0])
    first = 2 * (1 + 5 + 1 + 3) / 4 - 2 - 4
    second = 2 * (0 + 2 + 3 + 1 + 1 + 1) / 6 - (3 + 1 + 2) / 3 - 2
    assert class_energy(samples, labels, real, real_labels) == pytest.approx((first + second) / 2)


def test_energy_distance_is_about_zero_for_the_same_distribution_and_grows_with_a_shift() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = torch.randn(400, 5, generator=generator), torch.randn(300, 5, generator=generator)
    labels, real_labels = torch.arange(400) % 2, torch.arange(300) % 2
    same, near, far = (class_energy(ours + by, labels, theirs, real_labels) for by in (0.0, 0.5, 1.0))
    assert abs(same) < 0.03
    assert same + 0.1 < near < far


@pytest.mark.parametrize(
    ("looks", "step"),
    [
        ([(5, 1000, 0.9), (7, 1000, 0.99), (9, 1000, 1.0)], 7),
        ([(5, 200, 1.0), (7, 200, 1.0)], None),
        ([(5, 1000, 0.9899)], None),
        ([], None),
    ],
)
def test_quality_is_reached_at_the_first_look_at_all_samples(
    looks: list[tuple[int, int, float]], step: int | None
) -> None:
    made = [
        {"step": at, "samples": samples, "accuracy": right, "diversity": 0.82} for at, samples, right in looks
    ]
    found = reached(made)
    assert (found and found["step"]) == step
    assert reached([{**look, "diversity": 0.81} for look in made]) is None


def test_a_row_is_about_the_seeds_that_got_there_and_counts_the_others() -> None:
    def cell(seed: int, *looks: dict[str, float]) -> dict[str, Any]:
        made = [
            {**look, "samples": 1000, "step": 10 * i, "cpu_seconds": 7.0 * i * seed, "wall_seconds": 9.0 * i}
            for i, look in enumerate(looks, 1)
        ]
        return {"change": "adamw", "seed": seed, "looks": made}

    found = row("adamw", [cell(3, POOR, GOOD), cell(2, GOOD), cell(5, POOR, POOR, POOR)])
    assert (found["seeds"], found["reached"]) == ([2, 3, 5], 2)
    assert found["cpu_seconds"] == {"median": 28.0, "min": 14.0, "max": 42.0}
    assert found["looks"][5][-1] == [30, 105.0, 0.5, 0.84, 1000]
    assert "cpu_seconds" not in row("adamw", [cell(5, POOR)])


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """Changes that train three steps, and what a look says; counts the samples that were looked at."""
    asked: dict[str, list[int]] = {"few": [], "all": []}

    def looked(run: Any, num: int, **sampling: Any) -> dict[str, float]:
        asked["few" if num == time_to_quality.FEW else "all"].append(run.step)
        return GOOD if run.step >= 2 else POOR

    changes = {
        name: Change(change.help, change.recipe, (*change.settings, *TINY))
        for name, change in time_to_quality.CHANGES.items()
    }
    monkeypatch.setattr(time_to_quality, "CHANGES", changes)
    monkeypatch.setattr(time_to_quality, "LOOKS", 3)
    monkeypatch.setattr(time_to_quality, "judged", looked)
    monkeypatch.setattr(sampling_steps, "judged", looked)
    return asked


@pytest.mark.parametrize("name", ["paper", "muon", "times", "all"])
def test_a_cell_ends_when_it_is_there_and_is_not_run_again(
    name: str, tmp_path: Path, tiny: dict[str, list[int]]
) -> None:
    cell = run_cell(name, 4, tmp_path)
    assert [look["step"] for look in cell["looks"]] == [1, 2]
    assert [look["samples"] for look in cell["looks"]] == [200, 1000]
    assert 0 < cell["looks"][0]["cpu_seconds"] < cell["looks"][1]["cpu_seconds"]
    assert tiny == {"few": [1, 2], "all": [2]}
    assert run_cell(name, 4, tmp_path) == cell
    assert tiny == {"few": [1, 2], "all": [2]}


def test_a_cell_that_was_stopped_goes_on_and_goes_on_counting(
    tmp_path: Path, tiny: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    patched = time_to_quality.judged

    def stopped(run: Any, num: int, **sampling: Any) -> dict[str, float]:
        raise KeyboardInterrupt

    monkeypatch.setattr(time_to_quality, "judged", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_cell("batch", 0, tmp_path)
    trained = json.loads((tmp_path / "batch_0" / "clock.json").read_text())["1"]
    monkeypatch.setattr(time_to_quality, "judged", patched)
    looks = run_cell("batch", 0, tmp_path)["looks"]
    assert [looks[0]["cpu_seconds"], looks[0]["wall_seconds"]] == trained


def test_sampling_steps_go_on_with_the_runs_of_time_to_quality(
    tmp_path: Path, tiny: dict[str, list[int]]
) -> None:
    run_cell("all", 0, tmp_path)
    options = Options(settings={"folder": str(tmp_path), "seeds": "0", "steps": "5,7", "num": "30"})
    rows = sampling_steps.sampling_steps(options)
    assert [row["name"] for row in rows] == [
        "ddpm, 5 steps", "linear, 5 steps", "ddpm, 7 steps", "linear, 7 steps",
    ]  # fmt: skip
    assert rows[0]["guidance"] == 1.5
    assert tiny["all"] == [2, 3, 3, 3, 3]  # the runs of both paths were trained to their last step
    assert sampling_steps.sampling_steps(options) == rows
    assert tiny["all"] == [2, 3, 3, 3, 3]


def test_a_chart_of_ranges_has_a_dot_for_each_median_and_says_what_was_not_reached() -> None:
    made = [Range("first & best", 20.0, 25.0, 31.0), Range("never", None, None, None, "not reached: 0 of 3")]
    root = ElementTree.fromstring(ranges("Seconds", "CPU seconds", made))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"first & best", "25", "never", "not reached: 0 of 3", "10", "100"} <= {*texts}
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 1


@pytest.mark.parametrize("changes", [1, 2])
def test_a_chart_is_drawn_when_there_is_something_to_compare(
    changes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    took = {"median": 31.0, "min": 29.0, "max": 37.0}
    made = {"help": "all", "seeds": [0], "reached": 1, "cpu_seconds": took, "looks": {"0": [[50, 31.0]]}}
    others = [
        one for one in readme.newest_results(readme.ROOT / "benchmarks" / "results") if one["case"] != NAME
    ]
    reports = [*others, {"case": NAME, "rows": [made] * changes}]
    monkeypatch.setattr(readme, "newest_results", lambda folder: reports)
    assert (readme.ROOT / readme.LEARNING in readme.pages()) == (changes > 1)


def test_a_report_does_not_say_where_its_cells_were_kept() -> None:
    case = Case("any", "cpu", "nothing", lambda options: [])
    assert run_case(case, Options(settings={"folder": "cells", "seeds": "3"}))["settings"] == {"seeds": "3"}


def test_the_chart_of_time_to_quality_says_how_many_seeds_got_there_and_how_long_others_tried() -> None:
    took = {"median": 31.0, "min": 29.0, "max": 37.0}
    looks = {"0": [[50, 31.0, 0.99, 0.83, 1000]], "1": [[50, 29.0, 0.99, 0.83, 1000]]}
    rows = [
        {"help": "all", "seeds": [0, 1], "reached": 2, "cpu_seconds": took, "looks": looks},
        {"help": "paper", "seeds": [5], "reached": 0, "looks": {"5": [[230, 77.0, 0.1, 1.2, 200]]}},
    ]
    drawn = readme.learning([{"case": "time_to_quality", "rows": rows}])
    assert "31 (2 of 2 seeds)" in drawn
    assert "not after 77 s: 0 of 1 seeds" in drawn
