"""Clips as films, animations and folders of frames, from the command line and the library."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from clip_cases import FRAMES, SIZE, random_clips
from PIL import Image

from genzoo.api.run import Run
from genzoo.cli import main
from genzoo.core.errors import MissingDependencyError, UsageError
from genzoo.pictures.clip_files import read_clip, write_clip

pytest.importorskip("av")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("clip_format", "suffix"), [("frames", ""), ("gif", ".gif"), ("mp4", ".mp4")])
def test_sample_writes_every_format_and_goes_on_where_it_stopped(
    trained_clips: Run,
    tmp_path: Path,
    clip_format: str,
    suffix: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    call = ["sample", str(trained_clips.folder), "--out", str(out), "--num", "3", "--steps", "2"]
    for _ in range(2):
        with pytest.raises(SystemExit) as stop:
            main([*call, f"clip_format={clip_format}", "fps=12"])
        assert not stop.value.code
        film = "grid.mp4" if clip_format == "mp4" else "grid.gif"
        assert capsys.readouterr().out == f"{out}: samples.json, grid.png, {film}\n"
        clips = [f"00000{index}{suffix}" for index in range(3)]
        assert names(out) == sorted([*clips, "grid.png", film, "samples.json"])
        described = json.loads((out / "samples.json").read_text())["samples"]
        assert [row["file"] for row in described] == clips
        (out / "grid.png").unlink()
        (out / clips[1]).rename(tmp_path / f"gone{len(names(tmp_path))}")
    exact = trained_clips.sample(num=3, steps=2).images
    read = read_clip(out / f"000002{suffix}")
    assert len(read) == FRAMES
    assert (read.float().mean((1, 2, 3)) - exact[2].float().mean((1, 2, 3))).abs().max() < 12
    if clip_format == "frames":
        assert torch.equal(read, exact[2])
    if clip_format == "gif":
        with Image.open(out / f"000002{suffix}") as picture:
            assert picture.info["duration"] == pytest.approx(80, abs=4)


@pytest.mark.parametrize("suffix", ["", ".gif", ".mp4"])
def test_a_clip_comes_back_with_every_frame(tmp_path: Path, suffix: str) -> None:
    shades = torch.tensor([0, 90, 200, 255], dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 13, 16)
    clip = read_clip(write_clip(tmp_path / f"a{suffix}", shades))
    assert clip.shape == shades.shape
    assert (clip.int() - shades.int()).abs().max() <= (0 if suffix != ".mp4" else 4)


def test_formats_that_cannot_be_are_named(
    trained_clips: Run,
    trained: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UsageError, match=r"(?s)clip_format is 'avi'.*frames, mp4, gif"):
        trained_clips.sample_to(tmp_path / "a", num=1, clip_format="avi")
    with pytest.raises(UsageError, match="the samples are pictures"):
        trained.sample_to(tmp_path / "b", num=1, clip_format="mp4")
    trained_clips.sample_to(tmp_path / "c", num=1, steps=2)
    with pytest.raises(UsageError, match=r"differs in fps: .*samples: "):
        trained_clips.sample_to(tmp_path / "c", num=1, steps=2, clip_format="gif")
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r"genzoo\[video\]"):
        trained_clips.sample_to(tmp_path / "d", num=1, clip_format="mp4")
    assert not (tmp_path / "d").exists()


def test_a_grid_of_coloured_clips_plays(tmp_path: Path) -> None:
    assert random_clips(2, channels=3).shape == (2, FRAMES, 3, SIZE, SIZE)
    path = write_clip(tmp_path / "a.gif", random_clips(1, channels=3)[0], fps=4)
    with Image.open(path) as picture:
        assert (picture.n_frames, picture.info["duration"]) == (FRAMES, 250)
