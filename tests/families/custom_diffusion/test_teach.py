"""`genzoo teach`: photographs are looked at, words chosen, a recipe kept, trained, and every client
served.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from genzoo.cli import main
from genzoo.core.errors import DataError, UsageError
from genzoo.families.custom_diffusion.data.photographs import look_at
from genzoo.families.custom_diffusion.files.read_layouts import read_concept
from genzoo.families.custom_diffusion.teach import base_size, plan_lesson


def photograph(path: Path, seed: int, size: tuple[int, int] = (24, 30), **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed in range(4):
        photograph(tmp_path / "photos" / f"{seed}.png", seed)
    return tmp_path / "photos"


def test_one_line_teaches_and_serves_every_client(
    sd: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["teach", "My cat", str(photos), "--base", str(sd), "--steps", "2", "--num-class", "2"])
    assert not ended.value.code
    said = capsys.readouterr()
    shown = said.out
    assert "Loading weights" not in shown + said.err  # a bar of transformers
    assert shown.splitlines()[-2:] == [
        "concept: runs/cat/concept.safetensors; for other programs: runs/cat/clients, see clients.txt there",
        "try it: genzoo sample runs/cat --prompt 'photo of a <new1> cat'",
    ]
    assert "4 photographs, called 'photo of a <new1> cat'" in shown
    lesson, run = tmp_path / "taught" / "cat", tmp_path / "runs" / "cat"
    assert (lesson / "photographs.png").is_file()
    assert len(list((lesson / "photographs").iterdir())) == 4
    (entry,) = json.loads((lesson / "concepts.json").read_text())
    assert entry["class_prompt"] == "cat"
    recipe = yaml.safe_load((lesson / "recipe.yaml").read_text())
    assert (recipe["data"]["image_size"], recipe["train"]["steps"]) == (16, 2)
    assert list(read_concept(run / "concept.safetensors").tokens) == ["<new1>"]
    assert (run / "clients/a1111/models/Lora/cat.safetensors").is_file()
    assert (run / "clients/peft/adapter_config.json").is_file()
    told = (run / "clients/clients.txt").read_text()
    assert "type: <lora:cat:1> photo of a new1 cat" in told
    assert "not written: InvokeAI would refuse" in told
    assert len(list((tmp_path / "taught" / "cat-class" / "images").iterdir())) == 2


def test_a_word_and_a_place_of_ones_own_told_as_json(
    sd: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    own = ["--word", "<mycat>", "--run", str(tmp_path / "elsewhere" / "run"), "--json"]
    with pytest.raises(SystemExit) as ended:
        main(["teach", "my cat", str(photos), "--base", str(sd), "--steps", "2", "--num-class", "0", *own])
    assert not ended.value.code
    told = json.loads(capfd.readouterr().out)  # one object; the training's own words are on stderr
    assert told["prompt"] == "photo of a <mycat> cat"
    assert told["photographs"] == 4
    assert told["run"] == str(tmp_path / "elsewhere" / "run")
    assert list(read_concept(Path(told["concept"])).tokens) == ["<mycat>"]
    assert (Path(told["clients"]) / "clients.txt").is_file()
    assert Path(told["recipe"]).is_file()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("word", ["cat", "<>", "<My cat>", "<a><b>", "", "<" + "a" * 40 + ">"])
def test_what_is_no_new_word_is_refused(sd: Path, photos: Path, word: str) -> None:
    with pytest.raises(UsageError, match="no new word"):
        plan_lesson("my cat", photos, str(sd), word=word)


def test_the_recipe_alone_without_others_trains_half_as_long(
    sd: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "teach",
                "the red teapot",
                str(photos),
                "--base",
                str(sd),
                "--no-train",
                "--num-class",
                "0",
                "--json",
            ]
        )
    assert not ended.value.code
    assert sorted(json.loads(capfd.readouterr().out)) == ["photographs", "prompt", "recipe"]
    recipe = yaml.safe_load((tmp_path / "taught/red-teapot/recipe.yaml").read_text())
    assert recipe["train"]["steps"] == 125
    assert recipe["data"]["regularise"] is False
    assert not (tmp_path / "runs").exists()
    with pytest.raises(SystemExit) as ended:
        main(["validate", str(tmp_path / "taught/red-teapot/recipe.yaml")])
    assert not ended.value.code


def test_words_and_sizes_are_chosen(sd: Path, photos: Path) -> None:
    assert base_size(str(sd)) == 16
    assert plan_lesson("our old dog", photos, str(sd)).prompt == "photo of a <new1> old dog"
    assert plan_lesson("Rex", photos, str(sd), class_word="dog").prompt == "photo of a <new1> dog"
    with pytest.raises(UsageError, match="does not say what it is"):
        plan_lesson("my", photos, str(sd))


def test_copies_are_left_out_and_few_photographs_are_told(photos: Path) -> None:
    (photos / "again.png").write_bytes((photos / "0.png").read_bytes())
    found = look_at(photos, 16)
    assert len(found.paths) == 4
    assert any(
        "0.png is again.png again" in note or "again.png is 0.png again" in note for note in found.notes
    )
    assert any("4 photographs are few" in note for note in found.notes)


def test_photographs_are_turned_as_their_camera_says(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    exif = Image.Exif()
    exif[0x0112] = 6
    for seed in range(3):
        photograph(folder / f"{seed}.jpg", seed, (20, 40), exif=exif)
    pictures = look_at(folder, 16)
    assert pictures.sheet.image.width >= 3 * 16


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda folder: [photograph(folder / f"{k}.png", 0) for k in range(4)],
            "the 4 photographs are one picture",
        ),
        (
            lambda folder: [photograph(folder / f"{k}.png", k) for k in range(2)],
            "2 different photographs, and 3",
        ),
        (
            lambda folder: [photograph(folder / f"{k}.png", k, (7, 30)) for k in range(4)],
            "too small to learn from",
        ),
        (lambda folder: (folder.mkdir(), (folder / "a.png").write_bytes(b"no picture")), "a.png"),
    ],
    ids=["one picture", "too few", "tiny", "unreadable"],
)
def test_bad_photographs_are_refused(tmp_path: Path, make: object, message: str) -> None:
    make(tmp_path / "photos")  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        look_at(tmp_path / "photos", 16)
