"""What is no set of samples is refused in a few words, with the right code, and no advice to unpickle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genzoo.cli import main
from genzoo.core.errors import DataError, NonFiniteError
from genzoo.evaluation.clip_sources import ClipSet
from genzoo.evaluation.counts import duplicates, require_enough
from genzoo.evaluation.evaluate_images import Settings, evaluate
from genzoo.evaluation.features import from_callable
from genzoo.evaluation.protocols import load_protocol


def levels(n: int = 40, side: int = 20) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def saved(**arrays: np.ndarray) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        np.savez(folder / "x.npz", **arrays)
        return folder / "x.npz"

    return make


def holding(content: bytes, name: str = "x.npz") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def pictures(*sizes: tuple[int, int]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "set").mkdir()
        for index, size in enumerate(sizes):
            levels_of = np.full((*size, 3), 5 * index, dtype=np.uint8)
            Image.fromarray(levels_of).save(folder / "set" / f"{index}.png")
        return folder / "set"

    return make


def text_beside(folder: Path) -> Path:
    (folder / "set").mkdir()
    (folder / "set" / "notes.bmp").write_text("x")
    return folder / "set"


OBJECTS = np.array([{"a": 1}, {"b": 2}], dtype=object)
CASES: dict[str, tuple[Callable[[Path], Path], int, tuple[str, ...]]] = {
    "floats in -1..1": (saved(arr_0=levels() / 127.5 - 1), 4, ("float64 in [-1, 1]", "(x * 127.5 + 128)")),
    "floats in 0..1": (saved(arr_0=(levels() / 255).astype(np.float32)), 4, ("float32", "(x * 255)")),
    "floats that are none": (
        saved(arr_0=np.where(levels() > 250, np.nan, 0.5)),
        4,
        ("values are NaN", "what made"),
    ),
    "yes and no": (saved(arr_0=levels() > 99), 4, ("bool in [0, 1]", "(x * 255)")),
    "one picture in an npz": (saved(arr_0=levels(1)), 4, ("at least 2", "there is 1")),
    "int64": (saved(arr_0=levels().astype(np.int64)), 4, ("int64 in [0, 255]", "uint8")),
    "uint16": (saved(arr_0=levels().astype(np.uint16) * 257), 4, ("uint16", "// 257")),
    "channels first": (saved(arr_0=levels().transpose(0, 3, 1, 2)), 4, ("channels come last, (n, h, w, 3)",)),
    "two channels": (saved(arr_0=levels()[..., :2]), 4, ("(n, h, w, 3)",)),
    "four channels": (saved(arr_0=levels()[..., [0, 1, 2, 0]]), 4, ("(n, h, w, 3)",)),
    "grey without a channel": (saved(arr_0=levels()[..., 0]), 4, ("(n, h, w, 3)",)),
    "objects": (saved(arr_0=OBJECTS), 4, ("Python objects",)),
    "another name": (saved(images=levels(), labels=np.arange(3)), 4, ("holds no arr_0", "images, labels")),
    "statistics": (saved(mu=np.zeros(3), sigma=np.eye(3)), 4, ("statistics", "--reference")),
    "text": (holding(b"hello there"), 4, ("hello there",)),
    "html": (holding(b"<!doctype html><title>404"), 4, ("<!doctype",)),
    "a broken archive": (holding(b"PK\x03\x04 and no more"), 4, ("cannot be read",)),
    "an empty file": (holding(b""), 4, ("no npz or npy file",)),
    "an empty folder": (pictures(), 4, ("there is no picture below",)),
    "a folder of other files": (text_beside, 4, ("there is no picture below", "notes.bmp")),
    "one picture": (pictures((20, 20)), 4, ("at least 2", "there is 1")),
    "mixed sizes": (pictures(*[(20, 20)] * 30, (16, 20), *[(20, 20)] * 9), 4, ("mixed sizes", "30.png")),
    "nothing at all": (lambda folder: folder / "absent", 2, ("nothing is there",)),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_no_set_of_samples_is_refused_in_words(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, code, words = CASES[name]
    np.savez(tmp_path / "reference.npz", arr_0=levels(60))
    source = make(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "evaluate",
                str(source),
                "--protocol",
                "quick-pixels",
                "--num",
                "40",
            ]
            + ["--reference", str(tmp_path / "reference.npz"), "--device", "cpu"]
        )
    said = capsys.readouterr().err
    assert stop.value.code == code, said
    assert said.count("error:") == 1
    assert len(said.strip().splitlines()) <= 5
    assert "Traceback" not in said
    assert "pickle" not in said
    for word in words:
        assert word in said


def test_a_reference_is_held_to_the_same(tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", arr_0=OBJECTS)
    for reference, words in ((tmp_path / "objects.npz", "Python objects"), (levels() / 255, "float64")):
        with pytest.raises(DataError, match=words):
            evaluate(levels(), protocol="quick-pixels", reference=reference, num=40)


def test_features_that_are_no_numbers_name_the_picture() -> None:
    broken = from_callable(
        lambda x: torch.where(x[:, :1, 0, 0] > 200, torch.nan, 1.0).expand(-1, 3), name="broken"
    )
    with pytest.raises(NonFiniteError, match=r"the features of image \d+ are not finite") as error:
        evaluate(levels(), protocol="quick-pixels", reference=levels(60), num=40, network=broken)
    assert error.value.exit_code == 5


def clips(*lengths: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        for number, length in enumerate(lengths):
            (folder / f"clip{number}").mkdir(parents=True)
            for index in range(length):
                Image.new("RGB", (5, 4), (index, 0, 0)).save(folder / f"clip{number}" / f"{index}.png")
        return folder

    return make


def odd_frame(folder: Path) -> Path:
    clips(4, 4, 4)(folder)
    Image.new("RGB", (6, 4)).save(folder / "clip1" / "2.png")
    return folder


def test_whole_clips_have_one_length(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"clips have unlike lengths: 4 \(2\), 6 \(1\), first: .*clip2"):
        ClipSet(clips(4, 4, 6)(tmp_path / "a"), frames=None)
    assert len(ClipSet(clips(4, 4)(tmp_path / "b"), frames=None)) == 2
    cut = ClipSet(tmp_path / "a", frames=4)  # a protocol that says how long clips are
    assert len(cut) == 3


LENGTHS = "clips have unlike lengths: 4 (2), 6 (1)"
EMPTY = "there is no video and no folder of frames"
SIZES = "have mixed sizes: 4 x 5 (3), 4 x 6 (1)"


@pytest.mark.parametrize(
    ("make", "words", "as_reference"),
    [
        (clips(4, 4, 6), LENGTHS, False),  # a reference is cut to the generated length
        (clips(), EMPTY, False),
        (clips(), EMPTY, True),
        (odd_frame, SIZES, False),
        (odd_frame, SIZES, True),
    ],
    ids=["lengths", "empty", "empty reference", "frames", "frames of the reference"],
)
def test_bad_clips_are_refused_in_words(
    make: Callable[[Path], Path],
    words: str,
    as_reference: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "bad").mkdir()
    good, bad = clips(4, 4, 4)(tmp_path / "good"), make(tmp_path / "bad")
    source, reference = (good, bad) if as_reference else (bad, good)
    with pytest.raises(SystemExit) as stop:
        main(
            ["evaluate", str(source), "--reference", str(reference), "--num", "3"]
            + ["--protocol", "quick-video", "--device", "cpu"]
        )
    said = capsys.readouterr().err
    assert stop.value.code == 4, said
    assert words in said
    assert said.count("error:") == 1
    assert "Traceback" not in said


def test_too_few_pictures_are_told_with_the_option_that_helps() -> None:
    quick = load_protocol("quick-pixels")
    with pytest.raises(
        DataError, match="kid needs 200 pictures for each subset, the reference has 50"
    ) as error:
        require_enough(quick, 1000, 50)
    assert "--num 50 (evaluation.num=50 in a recipe)" in str(error.value)
    with pytest.raises(DataError, match="prdc needs 6 pictures for 5 neighbours, the reference has 5"):
        require_enough(load_protocol("mind-5k"), 5000, 5)
    require_enough(quick, 1000, 200)
    with pytest.raises(DataError, match="the reference has 30"):
        evaluate(levels(), protocol="quick-pixels", reference=levels(30), num=40)
    assert evaluate(levels(), protocol="quick-pixels", reference=levels(30), num=30).metrics


def test_twins_and_a_set_that_is_its_own_reference_are_told() -> None:
    array = levels()
    array[1:5] = array[0]
    same = evaluate(array, protocol="quick-pixels", reference=array, num=40, settings=Settings(cache=False))
    told = "\n".join(same.warnings)
    assert "the reference is the very set that is judged" in told
    assert "4 of 40 generated pictures repeat another one exactly" in told
    other = evaluate(levels(), protocol="quick-pixels", reference=levels(60), num=40)
    assert "repeat" not in "\n".join(other.warnings)
    assert duplicates(torch.tensor([[1.0, 2.0], [1.0, 2.0], [3.0, 4.0]])) == 1
    json.loads(same.to_json())
