"""What a number depends on is on it: guidance or none, the average, the precision, the held-out loss."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from run_cases import unjudged

from genzoo.api.evaluation import evaluate_run
from genzoo.api.evaluation.stated import beside, held_out_at, is_guided
from genzoo.api.run import Run, load_run
from genzoo.api.sampling.averages import average_of
from genzoo.cli import main
from genzoo.training.config import TrainConfig


@pytest.fixture
def run(trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    return unjudged(trained, tmp_path / "run")


def evaluate(run: Path, *more: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", str(run), "--protocol", "quick-pixels", "--num", "8", *more])
    return int(stop.value.code or 0)


def stated(run: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted((run / "evaluation").glob("quick-pixels-*.json"))]


def test_a_guided_result_has_its_unguided_form_beside_it(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(run) == 0
    (guided,) = stated(run)
    assert guided["sampling"]["guidance_scale"] == 1.5
    assert guided["beside"]["unguided"] == "not run"
    assert "unguided: not run" in capsys.readouterr().out
    assert evaluate(run, "--unguided") == 0
    results = {content["sampling"]["guidance_scale"]: content for content in stated(run)}
    assert set(results) == {1.0, 1.5}
    assert results[1.5]["beside"]["unguided"]["metrics"] == results[1.0]["metrics"]
    assert "unguided" not in results[1.0]["beside"]
    assert "unguided: pixel_frechet" in capsys.readouterr().out


def test_samples_of_other_seeds_are_not_the_unguided_form(run: Path) -> None:
    assert evaluate(run, "--guidance-scale", "1", "--seed", "3") == 0
    assert evaluate(run) == 0
    guided = next(content for content in stated(run) if content["sampling"]["guidance_scale"] == 1.5)
    assert guided["beside"]["unguided"] == "not run"


def test_the_average_the_precision_and_the_weights_are_named(run: Path) -> None:
    load_run(run).evaluate("quick-pixels", num=8)
    load_run(run).evaluate("quick-pixels", num=8, weights="raw")
    made = {content["sampling"]["weights"]: content["sampling"] for content in stated(run)}
    assert made["ema"]["average"].startswith("exponential, decay")
    assert made["raw"]["average"] == "none"
    assert made["ema"]["precision"] == "fp32"
    assert len(made["ema"]["weights_sha256"]) == 64
    assert made["ema"]["weights_sha256"] != made["raw"]["weights_sha256"]


def test_the_held_out_loss_of_the_checkpoint_is_beside_the_numbers(run: Path) -> None:
    log, step = run / "metrics.jsonl", load_run(run).step
    lines = [
        {"step": 1, "held_out/loss": 0.9},
        {"step": step, "held_out/loss": 0.5, "held_out/raw_loss": 0.6},
    ]
    lines.append({"step": step + 1, "held_out/loss": 0.1})
    log.write_text(log.read_text() + "".join(json.dumps(line) + "\n" for line in lines))
    load_run(run).evaluate("quick-pixels", num=8)
    assert stated(run)[0]["beside"]["held_out"] == {"step": step, "loss": 0.5, "raw_loss": 0.6}
    assert held_out_at(run / "absent", 3) is None
    assert held_out_at(log, 0) is None


SWEEP = ("--sweep", "guidance_scale=2,1,3")


def test_a_sweep_is_one_table_and_goes_on_behind_what_is_judged(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[float] = []
    judge = evaluate_run._judge

    def counted(folder, run, reference, judging):
        judged.append(judging["sampling"]["guidance_scale"])
        if judged == [1.0, 2.0]:
            raise KeyboardInterrupt  # stopped in its second
        return judge(folder, run, reference, judging)

    monkeypatch.setattr(evaluate_run, "_judge", counted)
    assert evaluate(run, *SWEEP) != 0
    assert evaluate(run, *SWEEP) == 0
    assert judged == [1.0, 2.0, 2.0, 3.0]  # the unguided one first: the others state it
    printed = capsys.readouterr().out
    assert re.search(r"quick-pixels +guidance 2\.0 +guidance 1\.0 +guidance 3\.0\n", printed)
    beside = {one["sampling"]["guidance_scale"]: one["beside"].get("unguided") for one in stated(run)}
    assert beside[1.0] is None
    assert all(isinstance(beside[scale], dict) for scale in (2.0, 3.0))
    assert evaluate(run, *SWEEP, "--json") == 0
    assert len(judged) == 4
    assert len(json.loads(capsys.readouterr().out)["tables"][0]["rows"]) == 3
    assert evaluate(run, *SWEEP, "--no-intervals") == 0  # other numbers were asked for
    assert len(judged) == 7


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--sweep", "guidance_scale=2"), "does not list values of one kind"),
        (("--sweep", "guidance_scale"), "does not list values of one kind"),
        (("--sweep", "guidance_scale=1,a"), "does not list values of one kind"),
        (("--sweep", "guidance_scale=1,1.0"), "no two alike"),
        (("--sweep", "guidance_scale=1,2", "--guidance-scale", "3"), "given beside --sweep"),
        (("--sweep", "guidance_scale=1,2", "--output", "x.json"), "genzoo compare RUN --output FOLDER"),
        (("--sweep", "steps=1,2", "--unguided"), "--guidance-scale 1"),
    ],
    ids=lambda words: "".join(words)[-30:] if isinstance(words, tuple) else "",
)
def test_a_sweep_that_is_none_is_refused(
    run: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(run, *words) == 2
    assert said in capsys.readouterr().err
    assert not stated(run)


def test_guidance_that_is_not_stated_is_no_guidance_to_compare(tmp_path: Path) -> None:
    assert is_guided({}) is None
    assert (is_guided({"guidance_scale": 1}), is_guided({"guidance_scale": 4.0})) == (False, True)
    (tmp_path / "quick-broken.json").write_text("[]")
    assert beside(tmp_path, tmp_path / "no.jsonl", "quick", {}) == {}
    assert beside(tmp_path, tmp_path / "no.jsonl", "quick", {"guidance_scale": 2.0}) == {
        "unguided": "not run"
    }


def train(**changes) -> TrainConfig:
    return TrainConfig(steps=9, batch_size=2, **changes)


def test_averages_have_names() -> None:
    assert average_of(train(ema_decay=0.99), "ema") == "exponential, decay 0.99"
    assert average_of(train(ema_decay=0.9, ema_ramp=True), "ema") == "exponential, decay 0.9, growing"
    scheduled = train(ema_decay=0.9, ema_schedule=[[50, 0.99]])
    assert average_of(scheduled, "ema") == "exponential, decay 0.9, then 0.99 from step 50"
    assert average_of(train(), "ema", 0.05) == "power-function average of relative length 0.05"
    assert average_of(None, "ema") == "as stored"


def test_only_runs_have_an_unguided_form(run: Path, tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"")
    assert evaluate(run, "--reference", str(tmp_path / "x.npz")) == 4
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", str(tmp_path / "x.npz"), "--reference", str(tmp_path), "--unguided"])
    assert stop.value.code == 2
