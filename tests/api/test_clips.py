"""Clips from a run: files, strips and animations, and what they depend on."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from clip_cases import FRAMES, SIZE, random_clips
from PIL import Image, ImageSequence

from genzoo.api.run import Run
from genzoo.api.sampling.samples import Samples
from genzoo.core.errors import MissingDependencyError, ShapeError, UsageError
from genzoo.pictures.animation import contact_sheet, make_animation
from genzoo.pictures.clip_files import read_frames, write_frames
from genzoo.pictures.grid import make_grid


def files(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.suffix in (".png", ".gif")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(found)}


def test_a_clip_depends_on_seed_and_index_only(trained_clips: Run) -> None:
    many = trained_clips.sample(num=5, seed=3)
    assert many.pixels.shape == (5, FRAMES, 1, SIZE, SIZE)
    assert torch.equal(many.pixels[:2], trained_clips.sample(num=2, seed=3).pixels)
    assert not torch.equal(many.pixels[0], many.pixels[1])


def test_a_clip_is_a_folder_of_frames(trained_clips: Run, tmp_path: Path) -> None:
    samples = trained_clips.sample(num=5, seed=1)
    saved = samples.save(tmp_path / "saved")
    written = trained_clips.sample_to(tmp_path / "written", num=5, seed=1, batch_size=2)
    assert files(written) == files(saved)
    assert len(files(written)) == 5 * FRAMES + 2  # the frames, and the grid as a sheet and playing
    assert torch.equal(read_frames(written / "000004"), samples.images[4])
    described = json.loads((written / "samples.json").read_text())
    assert described["samples"][2] == {"file": "000002", "class_labels": 2}


def test_an_interrupted_folder_of_clips_is_completed(trained_clips: Run, tmp_path: Path) -> None:
    folder = trained_clips.sample_to(tmp_path / "out", num=5)
    complete = files(folder)
    (folder / "000003").rename(tmp_path / "gone")
    trained_clips.sample_to(folder, num=5)
    assert files(folder) == complete
    (folder / "samples.json").unlink()
    with pytest.raises(UsageError, match=r"no samples\.json"):
        trained_clips.sample_to(folder, num=5)


def test_training_leaves_a_preview_and_a_grid_that_play(trained_clips: Run) -> None:
    found = trained_clips.report()["sample_grid"]
    for path in (Path(found["animation"]), trained_clips.folder / "samples/step_00000002/grid.gif"):
        with Image.open(path) as picture:
            assert picture.n_frames == FRAMES
    assert Path(found["grid"]).is_file()


def test_an_animation_shows_every_frame_exactly() -> None:
    clips = random_clips()
    with Image.open(io.BytesIO(make_animation(clips, columns=2, fps=10).gif())) as picture:
        frames = [np.array(frame.convert("L")) for frame in ImageSequence.Iterator(picture)]
        assert picture.info["duration"] == 100
        assert picture.info["loop"] == 0
    expected = [np.array(make_grid(clips[:, i], columns=2).image) for i in range(FRAMES)]
    assert len(frames) == FRAMES
    assert all(np.array_equal(frame, wanted) for frame, wanted in zip(frames, expected, strict=True))


def test_a_film_has_every_frame_in_order(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    shades = torch.tensor([20, 120, 220], dtype=torch.uint8)[None, :, None, None, None]
    path = make_animation(shades.expand(1, -1, 3, 65, 65), fps=5).save(tmp_path / "film.mp4")
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 5
    means = [float(frame[8:-8, 8:-8].mean()) for frame in frames]
    assert means == pytest.approx([20, 120, 220], abs=3)


def test_a_sheet_has_a_strip_for_each_clip() -> None:
    clips = random_clips(3)
    sheet = contact_sheet(clips)
    assert np.array_equal(sheet.image, make_grid(clips.flatten(0, 1), columns=FRAMES).image)
    two = contact_sheet(clips, columns=2).image
    assert two.width == 2 * sheet.image.width


def test_samples_of_clips_play_in_a_notebook() -> None:
    samples = Samples(random_clips().float() / 127.5 - 1)
    html = samples._repr_html_()
    assert html is not None
    assert base64.b64decode(html.split("base64,")[1].split('"')[0]).startswith(b"GIF8")
    assert samples._repr_png_().startswith(b"\x89PNG")
    assert Samples(torch.zeros(2, 1, 4, 4))._repr_html_() is None


def test_frames_of_a_clip_are_written_at_once(tmp_path: Path) -> None:
    clip = random_clips(1, channels=3)[0]
    assert torch.equal(read_frames(write_frames(tmp_path / "clip", clip)), clip)
    assert [path.name for path in tmp_path.iterdir()] == ["clip"]


def test_what_is_no_clip_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ShapeError, match=r"got \(4, 1, 12, 12\)"):
        make_animation(random_clips()[:, 0])
    with pytest.raises(UsageError, match="fps is 0"):
        make_animation(random_clips(), fps=0)
    animation = make_animation(random_clips())
    with pytest.raises(UsageError, match=r"name it \.gif or \.mp4"):
        animation.save(tmp_path / "film.avi")
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r"genzoo\[video\]"):
        animation.mp4()
