"""Results side by side: what is compared, what is not, and what is said about it."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from genzoo.api.evaluation.compare_runs import compare_runs, grids_of
from genzoo.cli import parser
from genzoo.core.errors import DataError, UsageError
from genzoo.evaluation.comparison.curves import Point, epochs_to_reach, read_curves
from genzoo.evaluation.comparison.page import build_page
from genzoo.evaluation.comparison.rows import Row, same_seeds, tables_of
from genzoo.evaluation.comparison.sweeps import guidance as scale_of
from genzoo.evaluation.comparison.sweeps import sweeps_of
from genzoo.evaluation.comparison.text import comparison_text
from genzoo.evaluation.intervals.estimate import of_mean
from genzoo.evaluation.result import EvaluationResult
from genzoo.evaluation.tables import shortened

HOSTILE = '<img src=x onerror="alert(1)">&"\'</style><script>alert(2)</script>'


def result(shift: float = 0.0, *, seed: int = 0, protocol: str = "quick", **changes) -> EvaluationResult:
    """A distance that is a mean of 50 terms, the same for the same seed but for a shift, and a recall."""
    random = torch.Generator().manual_seed(seed)
    estimate = of_mean(
        3 + shift, torch.randn(50, generator=random) + 0.02 * torch.arange(50) * shift, "x", 0.95
    )
    fields = {
        "protocol": protocol,
        "metrics": {"lite0_frechet": estimate.value, "lite0_kid_std": 0.3, "lite0_recall": 0.5 + shift / 10},
        "intervals": {"lite0_frechet": estimate.describe()},
        "terms": {"lite0_frechet": estimate.terms},
        "comparable": {"protocol": protocol, "reference": "a"},
        "generated": {"num": 50},
        "reference": {"num": 200},
        "sampling": {"seed": seed, "guidance_scale": 1.0, "weights": "ema"},
    }
    return EvaluationResult(**(fields | changes))


def rows(**results: EvaluationResult) -> list[Row]:
    return [Row(name, one, name) for name, one in results.items()]


def test_the_same_seeds_are_compared_by_pairs_and_others_are_not() -> None:
    paired = tables_of(rows(a=result(), b=result(0.3)))[0].verdicts
    apart = tables_of(rows(a=result(), b=result(0.3, seed=1)))[0].verdicts
    assert [one.metric for one in paired] == [
        "lite0_frechet"
    ]  # a recall without an interval, a std: no verdict
    assert (paired[0].difference.paired, paired[0].differs) == (True, True)
    assert (apart[0].difference.paired, apart[0].differs) == (False, False)
    assert not same_seeds(result(sampling={}), result(sampling={}))


def test_results_judged_unlike_get_no_verdict_and_every_difference_is_named() -> None:
    other = result(0.5, comparable={"protocol": "quick", "reference": "b", "network": "x"})
    table = tables_of(rows(a=result(), b=other, c=result(0.1)))[0]
    assert list(table.judged) == [("a", "b")]
    assert list(table.judged["a", "b"]) == ["reference: a against b", "network: not stated against x"]
    assert {(one.first, one.second) for one in table.verdicts} == {("a", "c")}
    text = comparison_text([table])
    assert "not compared: a and b: reference: a against b" in text


def test_how_samples_were_made_is_said() -> None:
    sampling = {"seed": 0, "guidance_scale": 4.0, "weights": "raw"}
    text = comparison_text(tables_of(rows(a=result(), b=result(0.3, sampling=sampling))))
    assert "sampled differently from a: guidance_scale: 1.0 against 4.0 (b)" in text
    assert "weights: ema against raw (b)" in text
    assert "lite0_frechet (down)" in text
    assert "different, a is better" in text
    assert "not over training runs" in text


def test_protocols_have_tables_of_their_own_and_labels_are_unlike() -> None:
    tables = tables_of(rows(a=result(), b=result(protocol="mind-5k")))
    assert [table.protocol for table in tables] == ["quick", "mind-5k"]
    with pytest.raises(UsageError, match="nothing to compare"):
        tables_of([])
    with pytest.raises(UsageError, match="have one label"):
        tables_of([Row("a", result()), Row("a", result())])


def guided(scale: float, **changes) -> EvaluationResult:
    sampling = {
        "seed": 0,
        "weights": "ema",
        "average": "exponential, decay 0.9",
        "steps": 20,
        "sampler": "ddim",
    }
    return result(scale / 10, sampling=sampling | {"guidance_scale": scale} | changes)


def test_what_numbers_depend_on_stands_in_the_table() -> None:
    held_out = {"step": 7.0, "loss": 0.25, "loss_se": 0.011, "stratum/0": 0.1}
    b = dataclasses.replace(guided(4.0, checkpoint="step_00001500"), beside={"held_out": held_out})
    tables = tables_of(rows(a=guided(1.0), b=b))
    text = comparison_text(tables)
    assert re.search(r"guidance +none +4\.0\n", text)
    assert re.search(r"checkpoint +- +step 1,500\n", text)
    assert re.search(r"held-out loss +- +0\.25 ± 0\.011\n", text)
    assert "all: weights ema, exponential, decay 0.9; sampler ddim, 20 steps; samples 50, seed 0" in text
    page = build_page(tables)
    for words in ("0.25 ± 0.011", "step 1,500", "All: weights ema, exponential, decay 0.9;"):
        assert words in page


def test_many_rows_stand_below_each_other() -> None:
    text = comparison_text(tables_of(rows(**{name: guided(i + 1.0) for i, name in enumerate("abcde")})))
    heading, _, *lines = text.splitlines()
    assert heading.split()[:3] == ["quick", "lite0_frechet", "(down)"]
    assert [line.split()[0] for line in lines[:5]] == list("abcde")
    assert "lite0_kid_std (" not in heading  # a spread over subsets is not better when it is smaller


def test_a_guided_result_without_its_unguided_form_says_so() -> None:
    alone = dataclasses.replace(guided(4.0), beside={"unguided": "not run"})
    known = dataclasses.replace(guided(4.0), beside={"unguided": {"file": "x", "metrics": {"fid": 2.5}}})
    assert "b, unguided: not run" in comparison_text(tables_of(rows(b=alone)))
    assert "b, unguided: fid 2.5" in build_page(tables_of(rows(b=known)))
    assert "unguided:" not in comparison_text(tables_of(rows(a=guided(1.0), b=alone)))  # it is in the table


def test_what_several_rows_share_is_said_once() -> None:
    several = rows(a=guided(1.0), b=guided(2.0), c=guided(4.0))
    several = [
        dataclasses.replace(row, result=dataclasses.replace(row.result, differences=["x"])) for row in several
    ]
    text = comparison_text(tables_of(several))
    assert text.count("differs from quick, all: x") == 1


def test_a_sweep_is_of_results_that_differ_in_guidance_alone() -> None:
    found = [Row(f"{s} {w}", guided(s, weights=w), "a") for s in (4.0, 1.0, 2.0) for w in ("ema", "raw")]
    found += [Row("once", guided(3.0, weights="ema", seed=5), "a"), Row("b", guided(1.0), "b")]
    swept = sweeps_of(found)
    assert {label: [scale_of(row) for row in each] for label, each in swept.items()} == {
        "a (ema, exponential, decay 0.9)": [1.0, 2.0, 4.0],
        "a (raw, exponential, decay 0.9)": [1.0, 2.0, 4.0],
    }
    assert list(sweeps_of(found[::2])) == ["a"]  # one sweep lends a run its name


class Opened(HTMLParser):
    """Tags and their attributes, as a browser sees them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))


def test_nothing_from_data_becomes_markup_and_nothing_is_fetched() -> None:
    hostile = result(
        protocol=HOSTILE,
        metrics={HOSTILE: 1.0},
        intervals={HOSTILE: of_mean(1.0, torch.arange(5.0), HOSTILE, 0.95).describe()},
        terms={},
        sampling={"seed": 0, HOSTILE: HOSTILE},
        differences=[HOSTILE],
        warnings=[HOSTILE],
        reference={"name": HOSTILE},
        comparable={HOSTILE: HOSTILE},
    )
    other = dataclasses.replace(hostile, comparable={}, sampling={"seed": HOSTILE})
    tables = tables_of([Row(HOSTILE, hostile), Row("b", hostile), Row("c", other)])
    page = build_page(tables, grids={HOSTILE: b"png"}, reached={HOSTILE: {HOSTILE: HOSTILE}}, notes=[HOSTILE])
    opened = Opened(page)
    assert "script" not in [tag for tag, _ in opened.tags]
    assert page.count("</style>") == 1
    for tag, attributes in opened.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "srcset", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert "url(" not in page
    assert "@import" not in page


def test_pages_are_for_light_and_dark_wide_and_narrow() -> None:
    page = build_page(tables_of(rows(a=result(), b=result(0.3))))
    assert "prefers-color-scheme:dark" in page
    assert "max-width:40rem" in page
    assert 'name="viewport"' in page
    assert page.count("<circle") == 2  # an interval for each row of the one metric that has them


def write_run(folder: Path, shift: float = 0.0) -> Path:
    """A run with two results, evaluations on the way, a log, and samples of one result."""
    (folder / "evaluation" / "samples-1").mkdir(parents=True)
    (folder / "recipe.yaml").write_text("name: x\n")
    for guidance in (1.0, 4.0):
        sampling = {"seed": 0, "guidance_scale": guidance, "weights": "ema"}
        found = result(
            shift + guidance / 10, sampling=sampling, generated={"num": 50, "folder": f"samples-{guidance:g}"}
        )
        found.save(folder / "evaluation" / f"quick-{guidance:g}.json")
    result(shift).save(folder / "evaluation" / "step_00000030.json")
    for index in range(3):
        levels = np.full((4, 5, 3), 40 * index, dtype=np.uint8)
        Image.fromarray(levels).save(folder / "evaluation" / "samples-1" / f"{index}.png")
    lines = [{"step": s, "samples": 20 * s, "loss": 1 / s, "samples_per_second": 10.0} for s in range(1, 41)]
    lines += [{"step": s, "evaluation/lite0_frechet": 40 / s + shift} for s in (10, 20, 30, 40)]
    lines.sort(key=lambda line: (line["step"], "loss" not in line))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 4')
    return folder


def test_a_run_brings_its_results_its_curves_and_its_samples(tmp_path: Path) -> None:
    found = compare_runs(
        [write_run(tmp_path / "a"), write_run(tmp_path / "b", 0.5)], reach={"lite0_frechet": 2.0}
    )
    labels = [row.label for row in found.rows]
    assert labels == [f"{run} (guidance {scale})" for run in "ab" for scale in ("1.0", "4.0")]
    assert list(grids_of(found.rows)) == ["a (guidance 1.0)", "b (guidance 1.0)"]
    ((name, each),) = found.reached.items()
    assert name == "EP@lite0_frechet50_unguided_ema<=2"
    assert each["a"].epochs == 20 * 20 / 200
    assert each["b"].epochs == 20 * 30 / 200
    loss = next(curve for curve in found.curves if curve.name == "loss")
    assert loss.points[-1] == Point(40, 800, 80, 1 / 40)
    json.dumps(found.to_data())


def test_a_folder_of_samples_and_a_file_bring_the_results_beside_them(tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    Image.new("RGB", (4, 4)).save(samples / "0.png")
    result().save(tmp_path / "samples.quick.json")
    result(0.2).save(tmp_path / "other.json")
    found = compare_runs([samples, tmp_path / "other.json"])
    assert [row.label for row in found.rows] == ["samples", "other"]
    assert found.rows[0].pictures == samples
    assert found.tables[0].verdicts[0].difference.paired  # the terms beside the results were read


def test_terms_of_another_result_are_not_taken_for_its_own(tmp_path: Path) -> None:
    first = result().save(tmp_path / "a.json")
    first.write_text(first.read_text().replace("lite0_kid_std", "lite0_kid_sdt"))
    result(0.3).save(tmp_path / "b.json")
    found = compare_runs([first, tmp_path / "b.json"])
    assert not found.tables[0].verdicts[0].difference.paired


def test_what_cannot_be_compared_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"text\.json is not a result"):
        compare_runs([tmp_path / "text.json"])
    with pytest.raises(UsageError, match="no run, folder or file"):
        compare_runs([tmp_path / "absent"])
    with pytest.raises(UsageError, match="there are no results to compare"):
        compare_runs([tmp_path / "empty"])
    with pytest.raises(UsageError, match="named twice"):
        compare_runs([tmp_path / "empty", tmp_path / "empty"])
    with pytest.raises(UsageError, match="no evaluations of fid in its log"):
        compare_runs([write_run(tmp_path / "run")], reach={"fid": 2.0})


def test_a_run_that_never_logged_a_metric_does_not_keep_others_from_their_epochs(tmp_path: Path) -> None:
    silent = write_run(tmp_path / "silent")
    (silent / "metrics.jsonl").unlink()
    found = compare_runs([silent, write_run(tmp_path / "run")], reach={"lite0_frechet": 2.0})
    assert [list(each) for each in found.reached.values()] == [["run"]]
    assert [note.rpartition("/")[2] for note in found.notes] == [
        "silent has no evaluations of lite0_frechet in its log"
    ]


def points(*values: float, first: int = 100) -> list[Point]:
    return [Point(i, first * 2**i, i, value) for i, value in enumerate(values)]


def test_epochs_to_a_value_are_those_of_a_confirmed_evaluation() -> None:
    curve = points(9, 5, 7, 4, 3)
    found = epochs_to_reach(curve, 5, per_epoch=100)
    assert found.epochs == 8  # 5 at twice the samples was not confirmed by the next
    assert 4 < found.between < 8
    assert str(epochs_to_reach(curve, 1, per_epoch=100)) == "> 16"
    assert epochs_to_reach(points(9, 8, 2), 2, per_epoch=100).epochs is None  # the last is confirmed by none
    rising = epochs_to_reach(points(0.1, 0.6, 0.7), 0.5, per_epoch=100, higher_is_better=True)
    assert rising.epochs == 2
    with pytest.raises(UsageError):
        epochs_to_reach([], 1, per_epoch=100)


def test_lines_of_a_log_that_are_no_numbers_are_passed_over(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text(
        '{"step": 1, "loss": NaN, "note": "x", "flag": true}\nnonsense\n{"step": 2, "loss": 0.5}\n'
    )
    (curve,) = read_curves("a", log)
    assert (curve.name, [point.step for point in curve.points]) == ("loss", [2])
    assert read_curves("a", tmp_path / "absent") == []


def run_command(*arguments: str):
    return CliRunner().invoke(parser(), ["compare", *arguments])


def test_the_command_prints_a_table_or_json_and_writes_one_folder(tmp_path: Path) -> None:
    runs = [str(write_run(tmp_path / "a")), str(write_run(tmp_path / "b", 0.5))]
    printed = run_command(*runs, "--reach", "lite0_frechet=2")
    assert printed.exit_code == 0, printed.output
    assert "EP@lite0_frechet50_unguided_ema<=2: a 2" in printed.stdout
    content = json.loads(run_command(*runs, "--json").stdout)
    assert content["tables"][0]["verdicts"][0]["metric"] == "lite0_frechet"
    out = tmp_path / "out"
    for _ in range(2):  # a comparison may replace a comparison
        assert run_command(*runs, "--output", str(out)).exit_code == 0
    assert {"comparison.html", "comparison.json"} <= {path.name for path in out.iterdir()}
    wrong = run_command(*runs, "--output", runs[0])
    assert isinstance(wrong.exception, UsageError)
    assert re.search("holds files already", str(wrong.exception))


@pytest.mark.parametrize("most", [9, 30])
def test_long_names_lose_their_middle(most: int) -> None:
    assert shortened("a" * most, most) == "a" * most
    found = shortened("begin" + "x" * most + "end", most)
    assert len(found) <= most
    assert (found[:3], found[-3:]) == ("beg", "end")


def test_plots_of_hostile_names_are_drawn_as_text(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from genzoo.evaluation.comparison.plots import curve_plots, sweep_plots

    run = write_run(tmp_path / "a")
    curves = read_curves("<script>$x$&", run / "metrics.jsonl")
    found = compare_runs([run])
    plots = [*curve_plots(curves), *sweep_plots(found.rows)]
    assert [plot.title for plot in plots] == [
        "training loss",
        "lite0_frechet in training",
        "lite0_frechet over guidance",
    ]
    for plot in plots:
        assert plot.png.startswith(b"\x89PNG")
        assert b"<script" not in plot.svg
        assert plot.svg != plot.dark_svg
    assert b"&lt;script" in plots[0].svg
    again = curve_plots(curves)
    assert again[0].svg == plots[0].svg  # the same results give the same file
