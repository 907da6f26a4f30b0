"""`genzoo prepare check`: folders, clips, tables and recipes looked at before a run, and exit code 4."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from users_cases import Gz, fill, fill_classes, spoil


def check(gz: Gz, *arguments: object, code: int = 0) -> dict[str, Any]:
    answer = gz("prepare", "check", *arguments, "--json")
    assert answer.code == code, answer.text
    found: dict[str, Any] = json.loads(answer.text[answer.text.index("{\n") :])
    return found


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes of four, and one of everything that goes wrong."""
    folder = fill_classes(tmp_path / "photos")
    spoil(folder / "a" / "1.png")
    shutil.copy(folder / "b" / "0.png", folder / "c" / "again.png")
    smooth = Image.radial_gradient("L").convert("RGB")
    smooth.crop((0, 0, 120, 100)).resize((60, 50)).save(folder / "b" / "2.png")
    smooth.crop((0, 0, 120, 100)).resize((36, 30)).save(folder / "b" / "smaller.jpg")
    (folder / "b" / ".thumb.png").write_bytes(b"x")
    (folder / "notes.txt").write_text("x")
    Image.new("RGB", (30, 20), "white").save(folder / "c" / "flat.png")
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_a_folder_of_pictures(photos: Path, gz: Gz, workers: int) -> None:
    found = check(gz, photos, "--num-workers", workers, code=4)
    assert (found["items"], found["looked_at"]) == (15, 15)
    assert found["classes"] == {"a": 4, "b": 5, "c": 6}
    assert found["sizes"] == {"14 x 13": 11, "60 x 50": 1, "36 x 30": 1, "30 x 20": 1}
    assert len(found["bad"]) == 1
    assert found["bad"][0].startswith("a/1.png: this picture cannot be decoded: ")
    assert found["equal"] == [["b/0.png", "c/again.png"]]
    assert ["b/2.png", "b/smaller.jpg"] in found["near"]
    assert found["left_out"] == ["notes.txt"]
    assert (found["hidden"], found["captioned"], found["warnings"]) == (1, None, [])


def test_it_is_readable_by_people_too(photos: Path, gz: Gz) -> None:
    answer = gz("prepare", "check", photos)
    assert answer.code == 4
    for text in (
        "3 classes: 0 a (4), 1 b (5), 2 c (6)",
        "unreadable  1\n  a/1.png",
        "or train with train.max_bad=1",
        "b/0.png = c/again.png",
        "notes.txt",
    ):
        assert text in answer.text
    (photos / "a" / "1.png").unlink()
    assert gz("prepare", "check", photos).code == 0


def test_some_at_even_steps(photos: Path, gz: Gz) -> None:
    found = check(gz, photos, "--limit", 5)  # 0, 3, 6, 9, 12: not the broken one
    assert (found["items"], found["looked_at"], found["bad"]) == (15, 5, [])


def test_what_occurs_in_data_held_out_too(photos: Path, gz: Gz, tmp_path: Path) -> None:
    (photos / "a" / "1.png").unlink()
    other = fill_classes(tmp_path / "held", "xy", 2)
    assert check(gz, other, "--against", photos)["same"] != []  # the same seeds
    shutil.rmtree(other / "x")
    for picture in (other / "y").iterdir():
        picture.unlink()
    shutil.copy(photos / "b" / "3.png", other / "y" / "copy.png")
    fill(other / "y", 2, seed=17)
    found = check(gz, other, "--against", photos)
    assert (found["against"], found["same"]) == (str(photos), [["y/copy.png", "b/3.png"]])
    assert found["alike"] == []


def test_a_recipe_with_settings(shared: Path, photos: Path, gz: Gz) -> None:
    found = check(gz, shared / "tiny.yaml", f"data.root={photos}", code=4)
    assert (found["items"], len(found["bad"]), found["hidden"]) == (15, 1, 1)
    assert check(gz, "quickstart/dim_digits")["classes"]["9"] > 100
    answer = gz("prepare", "check", "quickstart/dim_digit")
    assert answer.code == 2
    assert "did you mean 'quickstart/dim_digits'" in answer.text


def test_captions_that_are_missing(gz: Gz, tmp_path: Path) -> None:
    folder = fill(tmp_path / "captioned", 3)
    for name in ("0", "2"):
        (folder / f"{name}.txt").write_text(f"a {name}")
    found = check(gz, folder)
    assert (found["captioned"], found["without_caption"]) == (2, ["1.png"])
    table = folder / "metadata.csv"
    table.write_text("file_name,caption\n0.png,a\n1.png,\nabsent.png,b\n")
    found = check(gz, folder, code=4)
    assert (found["captioned"], found["without_caption"]) == (1, ["1.png", "2.png"])
    assert found["bad"] == ["absent.png: listed, and not there"]
    found = check(gz, table, code=4)
    assert (found["items"], found["captioned"], found["without_caption"]) == (3, 2, ["1.png"])


def test_clips_are_counted_and_measured(gz: Gz, tmp_path: Path) -> None:
    folder, generator = tmp_path / "clips", np.random.default_rng(0)
    for clip, frames in (("one", 3), ("two", 7), ("bad", 2)):
        for frame in range(frames):
            (folder / "k" / clip).mkdir(parents=True, exist_ok=True)
            levels = generator.integers(0, 255, (12, 16, 3), dtype=np.uint8)
            Image.fromarray(levels).save(folder / "k" / clip / f"{frame}.png")
    for frame in (folder / "k" / "bad").iterdir():
        spoil(frame)
    found = check(gz, folder, "name=video_folder", code=4)
    assert (found["items"], found["classes"], found["frames"]) == (3, {"k": 3}, {"shortest": 2, "longest": 7})
    assert len(found["bad"]) == 1
    shorter = check(gz, folder, "name=video_folder", "num_frames=3", "image_size=8")
    assert (shorter["items"], shorter["left_out"]) == (2, [f"{folder.resolve()}/k/bad (2 frames)"])


def test_odd_classes_are_told(gz: Gz, tmp_path: Path) -> None:
    for names, word in (
        (["train", "val"], "splits"),
        (["e\u0301", "\u00e9"], "look alike"),
        (["Cat", "cat"], "alike"),
    ):
        folder = tmp_path / word.replace(" ", "_") / names[0]
        for name in names:
            fill(folder / name, 2)
        warnings = check(gz, folder)["warnings"]
        assert len(warnings) == 1
        assert word in warnings[0]


@pytest.mark.parametrize("what", ["nowhere", "table.csv", "empty"])
def test_what_is_no_data_is_answered(gz: Gz, what: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    assert gz("prepare", "check", what).code in (2, 4)
    assert gz("prepare", "check", "empty", "image_siz=3").code == 2


def test_a_sheet_shows_what_training_would_see(photos: Path, tmp_path: Path, gz: Gz) -> None:
    sheet = tmp_path / "sheet.png"
    answer = gz("prepare", "check", photos, "--sheet", sheet)
    assert answer.code == 4  # one of them cannot be read, and is not shown
    assert f"look at {sheet}" in answer.text
    assert Image.open(sheet).size == (4 * 68, 4 * 68)
    assert gz("prepare", "check", photos, "image_size=40", f"sheet={sheet}").code == 4  # its own is replaced
    assert Image.open(sheet).size == (4 * 44, 4 * 44)


def test_a_sheet_replaces_nothing_of_others(photos: Path, gz: Gz) -> None:
    before = (photos / "b" / "0.png").read_bytes()
    for name in (photos / "b" / "0.png", photos / "notes.txt", photos / "sheet.jpg", photos / "b"):
        answer = gz("prepare", "check", photos, "--sheet", name)
        assert answer.code == 2, answer.text
    assert (photos / "b" / "0.png").read_bytes() == before
