"""Class lists choose what is shown; labels stay positions in the full list."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from genzoo.core.errors import DataError
from genzoo.data.class_lists import kept_labels, label_of
from genzoo.data.emoji import Emoji
from genzoo.data.image_folder import ImageFolder
from genzoo.data.image_listing import choose_classes

NAMES = ["ant", "bee", "cat", "dog"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, level in zip(NAMES, (0, 80, 160, 240), strict=True):
        for index in range(2):
            path = tmp_path / "data" / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (level, level, level)).save(path)
    return tmp_path / "data"


def levels(dataset: ImageFolder) -> list[tuple[int, int]]:
    """Label and grey level of every item."""
    items = [dataset.fetch(index) for index in range(len(dataset))]
    return [(int(item["class_labels"]), round(float(item["pixels"].mean() + 1) * 127.5)) for item in items]


def test_included_classes_keep_their_labels(folder: Path) -> None:
    dataset = ImageFolder(folder, image_size=8, include_classes=["dog", "bee"])
    assert levels(dataset) == [(1, 80), (1, 80), (3, 240), (3, 240)]
    assert (dataset.num_classes, dataset.class_names) == (4, NAMES)


def test_excluding_shows_the_others(folder: Path) -> None:
    seen = ImageFolder(folder, image_size=8, include_classes=["ant", "bee"])
    unseen = ImageFolder(folder, image_size=8, exclude_classes=["ant", "bee"])
    assert {label for label, _ in levels(seen)} == {0, 1}
    assert {label for label, _ in levels(unseen)} == {2, 3}
    assert seen.fingerprint != unseen.fingerprint


def test_a_list_may_be_a_file(folder: Path, tmp_path: Path) -> None:
    names = tmp_path / "train.txt"
    names.write_text("# to train on\ncat\n\nant\n")
    assert {label for label, _ in levels(ImageFolder(folder, image_size=8, include_classes=names))} == {0, 2}


def test_both_lists_together() -> None:
    assert kept_labels(NAMES, ["ant", "bee", "dog"], ["bee"]) == [0, 3]
    assert kept_labels(NAMES, None, None) is None


@pytest.mark.parametrize(
    ("include", "exclude", "message"),
    [
        (["dgo"], None, "did you mean 'dog'"),
        (None, ["elephant"], "there is no class 'elephant'"),
        (["ant", "ant"], None, "named twice"),
        ([], None, "no class is named"),
        (None, NAMES, "leaves none"),
        ("nowhere.txt", None, "nowhere.txt"),
    ],
)
def test_wrong_lists_are_named(include: list[str], exclude: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        kept_labels(NAMES, include, exclude)


def test_a_wrong_line_names_its_file(tmp_path: Path) -> None:
    names = tmp_path / "train.txt"
    names.write_text("ant\nbe\n")
    with pytest.raises(DataError, match=r"did you mean 'bee'") as caught:
        kept_labels(NAMES, names, None)
    assert "train.txt" in str(caught.value)


def test_a_folder_without_classes_has_none_to_choose(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="no classes"):
        ImageFolder(tmp_path, image_size=8, include_classes=["ant"])


def test_emoji_of_some_categories_keep_the_labels_of_all() -> None:
    everything = Emoji(image_size=32, styles=["noto"])
    food = Emoji(image_size=32, styles=["noto"], include_classes=["Food & Drink"])
    label = (everything.class_names or []).index("Food & Drink")
    assert food.num_classes == 7
    assert food.labels is not None
    assert everything.labels is not None
    assert set(food.labels.tolist()) == {label}
    assert torch.equal(food.images, everything.images[everything.labels == label])
    assert {item["category"] for item in food.items} == {"Food & Drink"}


def test_emoji_lists_are_those_of_what_a_label_means() -> None:
    flat = Emoji(image_size=32, classes="style", exclude_classes=["noto", "fluent_3d"])
    assert {item["style"] for item in flat.items} == {"fluent_flat"}
    with pytest.raises(DataError, match="did you mean 'Food & Drink'"):
        Emoji(image_size=32, include_classes=["Food & Drinks"])


def test_accents_are_one_character_or_two() -> None:
    composed, apart = "caf\u00e9", "cafe\u0301"  # as Linux types it, and as macOS names folders
    assert [label_of(name, ["bar", apart]) for name in (composed, apart)] == [1, 1]
    assert [label_of(name, [apart, composed]) for name in (composed, apart)] == [1, 0]  # the same one first
    assert label_of("cafe", [apart]) is None
    assert kept_labels(["bar", apart], [composed], None) == [1]
    with pytest.raises(DataError, match="named twice"):
        kept_labels(["bar", apart], [composed, apart], None)
    assert choose_classes([apart, "bar"], ["bar", composed], Path()) == ["bar", apart]
