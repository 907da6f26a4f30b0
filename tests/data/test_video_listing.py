"""Which files are clips and which folders classes; and the index that is built once."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")
from video_cases import frame_folder, video

from genzoo.core.errors import DataError
from genzoo.data import video_index
from genzoo.data.video_index import VideoIndex
from genzoo.data.video_listing import list_videos


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_flat_folders_have_no_classes(tmp_path: Path) -> None:
    listing = list_videos(touch(tmp_path, "b10.mp4", "b2.mp4", "notes.txt", ".hidden.mp4"))
    assert list(listing.clips) == ["b2.mp4", "b10.mp4"]
    assert (listing.labels, listing.class_names, listing.ignored) == (None, None, ["notes.txt"])


def test_folders_of_pictures_are_clips_in_natural_order(tmp_path: Path) -> None:
    listing = list_videos(touch(tmp_path, "a/9.jpg", "a/10.png", "b/1.webp"))
    assert list(listing.clips) == ["a", "b"]
    assert [listing.pictures(0), listing.pictures(1)] == [["a/9.jpg", "a/10.png"], ["b/1.webp"]]
    assert listing.class_names is None


def test_pictures_beside_videos_are_left_out(tmp_path: Path) -> None:
    listing = list_videos(touch(tmp_path, "A/1.mp4", "A/1.jpg", "B/x/1.png"))
    assert list(listing.clips) == ["A/1.mp4", "B/x"]
    assert listing.class_names == ["A", "B"]
    assert listing.ignored == ["A/1.jpg"]


def test_runs_and_overviews_among_the_clips_are_no_data(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png", "runs/x/samples/1.png", "runs/x/recipe.yaml", "runs/x/env.json")
    touch(tmp_path, "samples.json", "grid.gif", "grid.png")
    listing = list_videos(tmp_path)
    assert list(listing.clips) == ["a", "b"]
    assert sorted(listing.ignored) == ["grid.gif", "grid.png", f"runs{os.sep}", "samples.json"]


def test_labels_of_ucf101_are_those_of_lattes_code(tmp_path: Path) -> None:
    names = ["HammerThrow", "Hammering", "JumpRope", "JumpingJack", "YoYo"]
    listing = list_videos(touch(tmp_path, *(f"{name}/1.mp4" for name in names)))
    assert listing.class_names == sorted(names) == names


def test_classes_are_the_first_level_unless_switched_off(tmp_path: Path) -> None:
    touch(tmp_path, "A/1.mp4", "A/deep/2.mp4", "B/c/1.png")
    listing = list_videos(tmp_path)
    assert (list(listing.clips), listing.labels.tolist()) == (["A/1.mp4", "A/deep/2.mp4", "B/c"], [0, 0, 1])
    assert list_videos(tmp_path, class_folders=False).class_names is None
    chosen = list_videos(tmp_path, class_names=["B", "A"])
    assert (chosen.clips[0], chosen.labels.tolist()) == ("B/c", [0, 1, 1])


def test_some_classes_are_shown_and_keep_their_labels(tmp_path: Path) -> None:
    touch(tmp_path, "A/1.mp4", "B/1.mp4", "C/1.mp4")
    listing = list_videos(tmp_path, exclude_classes=["B"])
    assert (list(listing.clips), listing.labels.tolist()) == (["A/1.mp4", "C/1.mp4"], [0, 2])
    assert listing.class_names == ["A", "B", "C"]
    with pytest.raises(DataError, match="there is no class 'D'"):
        list_videos(tmp_path, include_classes=["D"])
    with pytest.raises(DataError, match="have no classes"):
        list_videos(tmp_path, class_folders=False, include_classes=["A"])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["1.mp4", "A/2.mp4"], "not clear whether there are classes"),
        (["A/1.mp4", "B/1.png"], "not clear whether there are classes"),
        (["A/1.png", "A/B/1.png"], "both pictures and folders"),
        (["1.txt"], "holds no videos"),
    ],
)
def test_mixed_folders_are_refused(tmp_path: Path, files: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        list_videos(touch(tmp_path, *files))


def test_a_list_chooses_the_clips_of_a_split(tmp_path: Path) -> None:
    touch(tmp_path, "A/1.avi", "A/2.avi", "B/1.avi", "B/a b.avi")
    split = tmp_path / "trainlist01.txt"
    split.write_text("B/1.avi 2\nB/a b.avi\n\nA/2.avi 1\n")
    listing = list_videos(tmp_path, split_file=split)
    assert list(listing.clips) == ["A/2.avi", "B/1.avi", "B/a b.avi"]
    assert (listing.class_names, listing.labels.tolist()) == (["A", "B"], [0, 1, 1])
    split.write_text("B/1.avi\nB/7.avi\n")
    with pytest.raises(DataError, match=r"(?s)1 of the 2 clips in the list.*B/7\.avi"):
        list_videos(tmp_path, split_file=split)
    with pytest.raises(DataError, match="split_file cannot be read"):
        list_videos(tmp_path, split_file=tmp_path / "absent.txt")


def test_links_are_refused_or_followed_once(tmp_path: Path) -> None:
    root = touch(tmp_path / "data", "A/1.mp4")
    (root / "A" / "again").symlink_to(root / "A", target_is_directory=True)
    with pytest.raises(DataError, match="links to folders are not followed"):
        list_videos(root)
    assert list(list_videos(root, follow_links=True).clips) == ["A/1.mp4"]


@pytest.fixture
def films(tmp_path: Path) -> Path:
    for number in range(3):
        video(tmp_path / "films" / f"{number}.mp4", 3 + number)
    (tmp_path / "films" / "bad.mp4").write_bytes(b"torn")
    return tmp_path / "films"


def index(films: Path, looked: list[str] | None = None) -> VideoIndex:
    names = sorted(path.name for path in films.iterdir())
    return VideoIndex(films, names, folder=films.parent / "index")


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are looked at."""
    found: list[str] = []
    probe = video_index.probe
    monkeypatch.setattr(video_index, "probe", lambda path: found.append(path.name) or probe(path))
    return found


def test_files_are_looked_at_once_and_again_when_edited(films: Path, looked: list[str]) -> None:
    first = index(films)
    assert [first.num_frames(i) for i in range(4)] == [3, 4, 5, 0]
    with pytest.raises(DataError, match=r"bad\.mp4"):
        first[3]
    assert sorted(looked) == ["0.mp4", "1.mp4", "2.mp4", "bad.mp4"]
    looked.clear()
    again = index(films)
    assert looked == []
    assert all(np.array_equal(a, b) for a, b in zip(again[1][:3], first[1][:3], strict=True))
    video(films / "1.mp4", 7)
    assert index(films).num_frames(1) == 7
    assert looked == ["1.mp4"]
    (path,) = (films.parent / "index").iterdir()
    assert len(video_index.read_index(path)) == 4


@pytest.mark.parametrize("damage", ["truncate", "flip", "garbage", "empty"])
def test_a_damaged_index_is_built_again(
    films: Path, looked: list[str], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    index(films)
    looked.clear()
    (path,) = (films.parent / "index").iterdir()
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    damaged = {"truncate": data[:-20], "flip": data, "garbage": b"x" * 99, "empty": b""}[damage]
    path.write_bytes(bytes(damaged))
    with caplog.at_level(logging.WARNING):
        assert [index(films).num_frames(i) for i in range(4)] == [3, 4, 5, 0]
    assert "is damaged" in caplog.text
    assert len(looked) == 4


def test_an_index_that_cannot_be_kept_is_no_reason_to_stop(
    films: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with caplog.at_level(logging.WARNING):
        assert index(films).num_frames(2) == 5
    assert "No space left" in caplog.text
    assert list((films.parent / "index").iterdir()) == []


def test_frame_folders_need_no_index(tmp_path: Path, looked: list[str]) -> None:
    frame_folder(tmp_path / "data" / "clip", 3)
    assert len(list_videos(tmp_path / "data").clips) == 1
    assert looked == []
