"""Frames out of video files: exactly the ones asked for, upright, and nothing but errors for the rest."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

av = pytest.importorskip("av")
from video_cases import HEIGHT, WIDTH, number_of, video  # noqa: E402

from genzoo.core.errors import DataError, MissingDependencyError  # noqa: E402
from genzoo.data.video_decode import probe, read_video  # noqa: E402

KINDS = {
    "h264.mp4": "libx264", "mpeg4.mp4": "mpeg4", "h264.mkv": "libx264", "vp9.webm": "libvpx-vp9",
    "mpeg4.avi": "mpeg4", "ffv1.mkv": "ffv1", "mpeg2.mpg": "mpeg2video", "h264.ts": "libx264",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_is_reached_exactly_however_it_is_asked_for(kind: str, tmp_path: Path) -> None:
    path = video(tmp_path / kind, 12, codec=KINDS[kind])
    facts = probe(path)
    with av.open(str(path)) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(facts.times) == len(expected) == 12
    alone = [next(read_video(path, facts, [number])) for number in range(12)]
    together = list(read_video(path, facts, [1, 2, 10, 11]))
    assert [number for number, _ in together] == [1, 2, 10, 11]
    for number, picture in [*alone, *together]:
        assert np.array_equal(np.asarray(picture), expected[number])
    assert [number_of(picture) for _, picture in alone] == list(range(12))


def test_only_the_part_around_the_wanted_frames_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = video(tmp_path / "long.mp4", 40, codec="libx264")
    facts = probe(path)
    decoded: list[int] = []
    true = np.searchsorted
    monkeypatch.setattr(
        "genzoo.data.video_decode._number",
        lambda facts, time: decoded.append(1) or int(true(facts.times, time)),
    )
    assert [number for number, _ in read_video(path, facts, [38, 39])] == [38, 39]
    assert len(decoded) <= 10
    decoded.clear()
    assert [number for number, _ in read_video(path, facts, [0, 37])] == [0, 37]
    assert len(decoded) <= 10


def test_times_are_those_of_a_variable_frame_rate(tmp_path: Path) -> None:
    times = [0, 100, 150, 500, 900, 1000]
    facts = probe(video(tmp_path / "vfr.mkv", 6, codec="libx264", times=times))
    np.testing.assert_allclose(facts.seconds * 1000, times)


@pytest.mark.parametrize(("rotation", "turn"), [(90, 1), (180, 2), (270, 3)])
def test_a_rotated_file_is_shown_upright(rotation: int, turn: int, tmp_path: Path) -> None:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[:8, :8] = 255  # a light corner, at the upper left as stored
    path = video(tmp_path / "phone.mp4", 1, rotation=rotation, pictures=[picture])
    _, shown = next(read_video(path, probe(path), [0]))
    expected = np.rot90(picture, turn)
    assert shown.size == (expected.shape[1], expected.shape[0])
    assert np.abs(np.asarray(shown).astype(int) - expected).mean() < 12


def test_transparency_is_laid_on_white_and_grey_becomes_three_channels(tmp_path: Path) -> None:
    left_half = Image.new("RGBA", (16, 12))
    left_half.paste((0, 0, 0, 255), (0, 0, 8, 12))
    left_half.save(tmp_path / "a.gif")
    _, shown = next(read_video(tmp_path / "a.gif", probe(tmp_path / "a.gif"), [0]))
    assert np.asarray(shown)[0, :, 0].tolist() == [0] * 8 + [255] * 8
    path = video(tmp_path / "grey.mkv", 2, codec="ffv1", pix_fmt="gray")
    assert np.asarray(next(read_video(path, probe(path), [1]))[1]).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("size", [(33, 25), (2, 2), (64, 2)])
def test_odd_sizes_are_read_as_they_are(size: tuple[int, int], tmp_path: Path) -> None:
    path = video(tmp_path / "odd.mkv", 2, codec="ffv1", size=size, pix_fmt="bgr0")
    assert next(read_video(path, probe(path), [1]))[1].size == size


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\ngood.ts\n#EXT-X-ENDLIST\n"
HOSTILE = {
    "empty": b"",
    "text": b"this is no video at all\n" * 9,
    "playlist": PLAYLIST.encode(),
    "script": b"ffconcat version 1.0\nfile good.ts\n",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_no_video_is_named(kind: str, tmp_path: Path) -> None:
    video(tmp_path / "good.ts", 3, codec="libx264")
    (tmp_path / "bad.mp4").write_bytes(HOSTILE[kind])
    with pytest.raises(DataError, match=r"(?s)cannot be read.*bad\.mp4"):
        probe(tmp_path / "bad.mp4")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts", "a.webm"])
def test_every_truncation_is_an_error_or_a_shorter_video(name: str, tmp_path: Path) -> None:
    codec = {"a.webm": "libvpx-vp9"}.get(name, "mpeg4")
    data = video(tmp_path / name, 8, codec=codec).read_bytes()
    for part in range(0, 20):
        (tmp_path / name).write_bytes(data[: len(data) * part // 20])
        try:
            facts = probe(tmp_path / name)
            shown = list(read_video(tmp_path / name, facts, range(len(facts.times))))
        except DataError as error:
            assert name in str(error)  # noqa: PT017
        else:
            assert [number for number, _ in shown] == list(range(len(facts.times)))
            assert len(facts.times) <= 8


def test_a_file_that_ends_before_a_frame_is_named(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", 12)
    facts = probe(path)
    video(path, 6)
    with pytest.raises(DataError, match=r"(?s)frame 9 of this video cannot be decoded.*a\.mp4.*changed"):
        list(read_video(path, facts, [2, 9]))


def test_pipes_folders_and_music_are_no_videos(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    for name in ("pipe.mp4", "folder.mp4"):
        with pytest.raises(DataError, match="not a regular file"):
            probe(tmp_path / name)
    with av.open(str(tmp_path / "music.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(DataError, match="holds no video"):
        probe(tmp_path / "music.mkv")
    with pytest.raises(DataError, match="cannot be read"):
        probe(tmp_path / "absent.mp4")


def test_frames_too_large_to_hold_are_refused(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", 2)
    with pytest.raises(DataError, match="at most 700 are allowed"):
        next(read_video(path, probe(path), [0], max_pixels=700))


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r"genzoo\[video\]"):
        probe(tmp_path / "a.mp4")


@pytest.mark.parametrize("kind", ["h264.mp4", "vp9.webm", "mpeg4.avi"])
def test_flipped_bytes_are_an_error_or_another_picture(kind: str, tmp_path: Path) -> None:
    data = np.frombuffer(video(tmp_path / kind, 6, codec=KINDS[kind]).read_bytes(), np.uint8)
    random, outcomes = np.random.default_rng(0), set()
    for _ in range(40):
        changed = data.copy()
        changed[random.integers(len(data), size=3)] = random.integers(256, size=3)
        (tmp_path / kind).write_bytes(changed.tobytes())
        try:
            facts = probe(tmp_path / kind)
            shown = list(read_video(tmp_path / kind, facts, range(min(9, len(facts.times)))))
        except DataError as error:
            outcomes.add(kind in str(error))
        else:
            outcomes.add(all(picture.mode == "RGB" for _, picture in shown))
    assert outcomes == {True}


@pytest.mark.parametrize("error", [TypeError("no argument 'metadata_errors'"), AttributeError("rotation")])
def test_a_fault_of_the_library_is_not_blamed_on_the_file(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object, **options: object) -> None:
        raise error

    path = video(tmp_path / "a.mp4", 2)
    monkeypatch.setattr(av, "open", fails)
    with pytest.raises(type(error), match=str(error)):
        probe(path)
