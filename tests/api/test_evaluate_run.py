"""`genzoo evaluate RUN`: sampled into the run, judged by its data, resumable, with a page."""

import json
from pathlib import Path

import pytest
from run_cases import unjudged

from genzoo.api.run import Run, load_run
from genzoo.cli import main


@pytest.fixture
def run(trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    return unjudged(trained, tmp_path / "run")


def evaluate(run: Path, *more: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", str(run), "--protocol", "quick-pixels", "--num", "8", *more])
    return int(stop.value.code or 0)


def results(run: Path) -> list[Path]:
    return sorted((run / "evaluation").glob("quick-pixels-*.json"))


def test_a_run_is_sampled_judged_and_shown(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(run, "--report") == 0
    assert "pixel_kid" in capsys.readouterr().out
    (path,) = results(run)
    content = json.loads(path.read_text())
    assert content["sampling"]["sampler"] == "ddim"
    assert content["sampling"]["steps"] == 3
    assert content["sampling"]["guidance_scale"] == 1.5
    assert content["sampling"]["weights"] == "ema"
    page = path.with_suffix(".html").read_text()
    assert "Training curves" in page
    assert "<polyline" in page
    assert "Nearest reference images" in page
    assert "made with: weights ema" in page
    assert "prefers-color-scheme:dark" in page
    assert 'name="viewport"' in page


def test_lost_samples_are_made_again_and_the_numbers_stay(run: Path) -> None:
    assert evaluate(run) == 0
    (path,) = results(run)
    first = json.loads(path.read_text())
    (samples,) = [folder for folder in (run / "evaluation").iterdir() if folder.is_dir()]
    before = {file.name: file.read_bytes() for file in samples.glob("0*.png")}
    (samples / "000003.png").unlink()
    assert evaluate(run) == 0
    assert {file.name: file.read_bytes() for file in samples.glob("0*.png")} == before
    assert json.loads(path.read_text())["metrics"] == first["metrics"]


def test_other_settings_make_other_samples(run: Path) -> None:
    assert evaluate(run) == 0
    assert evaluate(run, "--guidance-scale", "3.0", "--model-weights", "raw", "--seed", "1") == 0
    one, other = (json.loads(path.read_text()) for path in results(run))
    assert one["generated"]["sha256"] != other["generated"]["sha256"]
    assert {one["sampling"]["weights"], other["sampling"]["weights"]} == {"ema", "raw"}


def test_what_a_run_cannot_do_is_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(run, "--model-weights", "best") == 2
    assert 'use "ema" or "raw"' in capsys.readouterr().err
    assert evaluate(run, "--protocol", "quick-video") == 2
    assert "judges clips" in capsys.readouterr().err


def test_a_run_judges_itself(run: Path) -> None:
    assert evaluate(run) == 0
    result = load_run(run).evaluate("quick-pixels", num=8)
    assert dict(result.metrics) == json.loads(results(run)[0].read_text())["metrics"]


def test_a_reference_that_is_not_there_is_told_before_anything_is_sampled(run: Path, tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no pictures")
    for name in ("absent", "text.npz"):
        assert evaluate(run, "--reference", str(tmp_path / name)) == 4
    assert not (run / "evaluation").exists()
