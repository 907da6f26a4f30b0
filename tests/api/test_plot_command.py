"""`genzoo plot`: a picture for each curve, in the run or in a folder of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from genzoo.cli import main


def run_folder(folder: Path, scale: float) -> Path:
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("name: x\n")
    lines = [
        {
            "step": step,
            "samples": 4 * step,
            "samples_per_second": 2.0,
            "loss": scale / step,
            "held_out/loss": 1.0,
        }
        for step in (1, 2, 3)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def plot(*words: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["plot", *map(str, words)])
    return int(caught.value.code or 0)


def test_a_run_keeps_its_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    run = run_folder(tmp_path / "runs" / "a", 1.0)
    assert plot(run, "--json") == 0
    files = json.loads(capsys.readouterr().out)
    assert set(files) == {"loss", "held_out/loss"}
    assert Image.open(files["held_out/loss"]).width > Image.open(files["loss"]).height
    before = Path(files["loss"]).read_bytes()
    assert plot(run) == 0  # again: its own pictures may be replaced, and are the same
    assert Path(files["loss"]).read_bytes() == before


def test_runs_are_drawn_together(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    runs = [run_folder(tmp_path / name, scale) for name, scale in (("a", 1.0), ("b", 5.0))]
    assert plot(*runs, "--output", tmp_path / "both") == 0
    assert plot(runs[0], "--output", tmp_path / "one") == 0
    both, one = ((tmp_path / name / "loss.png").read_bytes() for name in ("both", "one"))
    assert both != one


def test_what_cannot_be_drawn_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    runs = [run_folder(tmp_path / name, 1.0) for name in ("a", "b")]
    assert plot(*runs) == 2
    (runs[0] / "metrics.jsonl").write_text("")
    assert plot(runs[0]) == 4
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "letter.txt").write_text("mine")
    assert plot(runs[1], "--output", taken) == 2
    assert plot(tmp_path / "nothing") == 2
    said = capsys.readouterr().err
    assert all(words in said for words in ("need a folder", "nothing to draw", "letter.txt", "nothing"))
    assert not (runs[0] / "plots").exists()


def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    assert plot(run_folder(tmp_path / "a", 1.0)) == 3
    assert "genzoo[plots]" in capsys.readouterr().err
