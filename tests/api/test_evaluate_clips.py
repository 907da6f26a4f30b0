"""`genzoo evaluate` on runs and folders of clips."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from run_cases import unjudged

from genzoo.api.run import Run
from genzoo.cli import main
from genzoo.data.moving_digits import MovingDigits
from genzoo.data.picture_sets import DatasetPictures, content_hash
from genzoo.evaluation.clip_sources import choose_clips, open_videos


@pytest.fixture
def run(trained_clips: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    return unjudged(trained_clips, tmp_path / "run")


def evaluate(source: Path, *more: object, protocol: str = "quick-video", num: int = 6) -> int:
    words = ["evaluate", str(source), "--protocol", protocol, "--num", str(num), *map(str, more)]
    with pytest.raises(SystemExit) as stop:
        main(words)
    return int(stop.value.code or 0)


def test_a_run_of_clips_is_judged_by_its_own_data(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(run, "--steps", 2) == 0
    assert "pixel_frechet" in capsys.readouterr().out
    (path,) = (run / "evaluation").glob("quick-video-*.json")
    content = json.loads(path.read_text())
    assert content["generated"]["num"] == 6
    assert content["comparable"]["clip size"] == "3 x 12 x 12"
    assert content["reference"]["name"] == "moving_digits"
    assert "reference clips as the data set cuts them, without augmentation" in content["differences"]
    assert content["sampling"]["steps"] == 2
    (samples,) = [folder for folder in (run / "evaluation").iterdir() if folder.is_dir()]
    assert len(open_videos(samples)[0]) == 6  # without the overview
    shutil.rmtree(samples / "000004")
    assert evaluate(run, "--steps", 2) == 0
    assert json.loads(path.read_text())["metrics"] == content["metrics"]


def test_a_folder_of_films_is_judged_against_films(
    trained_clips: Run, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("av")
    made, real = (
        trained_clips.sample_to(tmp_path / name, num=4, seed=seed, steps=2, clip_format="mp4")
        for name, seed in (("made", 0), ("real", 1))
    )
    assert len(open_videos(made)[0]) == 4
    assert evaluate(made, "--reference", real, num=4) == 0
    result = json.loads((tmp_path / "made.quick-video.json").read_text())
    assert result["sampling"]["run"] == "tiny_clips"
    assert result["comparable"]["clip size"] == "3 x 12 x 12"


def test_what_cannot_be_judged_is_said_before_anything_is_sampled(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENZOO_WEIGHTS", str(tmp_path / "empty"))
    assert evaluate(run, protocol="quick-pixels") == 2
    assert "judges images, which a run's samples are not: it makes clips" in capsys.readouterr().err
    assert evaluate(run, "--report") == 2
    assert "grid.gif shows the clips" in capsys.readouterr().err
    assert evaluate(run, protocol="styleganv-fvd2048-16f") == 4  # its I3D is not on this machine
    assert "i3d" in capsys.readouterr().err.lower()
    assert not (run / "evaluation").exists()
    real = np.zeros((9, 3, 10, 12, 3), np.uint8)
    np.save(tmp_path / "real.npy", real)
    assert evaluate(run, "--reference", tmp_path / "real.npy", "--steps", 2) == 4
    assert "generated clips are 3 x 12 x 12, reference clips 3 x 10 x 12" in capsys.readouterr().err


def test_clips_of_a_data_set_are_numbered_chosen_and_hashed() -> None:
    clips = DatasetPictures(MovingDigits(num_frames=3, clips_per_digit=1))
    assert clips.read(5).shape == (3, 16, 16, 3)
    part, again = (choose_clips(clips, 7, select="random", seed=0) for _ in range(2))
    first = choose_clips(clips, 7, select="first", seed=0)
    assert len(set(part.indices)) == len(part) == 7
    assert list(part.indices) == list(again.indices) != list(range(7))
    assert len({content_hash(each) for each in (part, clips, first)}) == 3
    assert np.array_equal(part.read(2), clips.read(part.indices[2]))
