"""Classes by name wherever labels go: options, lists, files, grids, samples.json and the page of a run."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from users_cases import Gz, fill

from genzoo.api.run import Run, load_run, train
from genzoo.api.sampling.class_names import captions_of, labels_of_names
from genzoo.core.errors import UsageError
from genzoo.core.recipe import load_recipe
from genzoo.pictures.grid import make_grid

NAMES = ["a, b", "cat", "my dog"]


@pytest.fixture(scope="module")
def named(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("named")
    for seed, name in enumerate(NAMES):
        fill(folder / "data" / name, 3, seed=seed)
    recipe = load_recipe(
        str(shared / "tiny.yaml"), [f"data.root={folder / 'data'}", "preview={every: 4, num: 3}"]
    )
    return train(recipe, output=folder / "run")


def about(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "samples.json").read_text())
    return found


@pytest.mark.parametrize(
    ("asked", "labels"),
    [
        (["--class", "my dog"], [2] * 3),
        (["--class", "my dog", "--class", "cat", "--class", "0"], [2, 1, 0]),
        (["--class", "cat,my dog,1"], [1, 2, 1]),
        (["--class", "a, b"], [0] * 3),
        (["class_labels=cat"], [1] * 3),
        (["class_labels=[cat, 2, my dog]"], [1, 2, 2]),
    ],
)
def test_names_are_labels(named: Run, gz: Gz, tmp_path: Path, asked: list[str], labels: list[int]) -> None:
    answer = gz("sample", named.folder, *asked, "--num", 3, "--out", "out")
    assert answer.code == 0, answer.text
    found = about(tmp_path / "out")
    assert [row["class_labels"] for row in found["samples"]] == labels
    assert found["classes"] == {str(label): NAMES[label] for label in sorted(set(labels))}


def test_a_list_of_names_says_how_many_and_shares_the_folder_of_numbers(named: Run, gz: Gz) -> None:
    first = gz("sample", named.folder, "class_labels=[cat,my dog]")
    second = gz("sample", named.folder, "class_labels=[1,2]")
    assert first.text.splitlines()[-1] == second.text.splitlines()[-1]
    assert len(named.sample(class_labels=["cat", "my dog"])) == 2


def test_names_with_accents_are_found_however_they_are_typed() -> None:
    names = ["bar", "cafe\u0301"]  # two characters, as macOS names folders
    assert labels_of_names("caf\u00e9", names) == 1
    assert labels_of_names("bar,caf\u00e9", names) == [0, 1]


def test_the_first_words_of_a_name_will_do_where_they_are_those_of_one() -> None:
    names = ["Animals & Nature", "up red apple", "up bus", "Animalsville"]
    assert labels_of_names("Animals", names) == 0
    assert labels_of_names("up red,Animals", names) == [1, 0]
    for several_or_none in ("up", "Anim", "", "apple"):
        with pytest.raises(UsageError, match="there is no class"):
            labels_of_names(several_or_none, names)


def test_a_name_that_is_none_is_answered_before_anything_is_written(
    named: Run, gz: Gz, tmp_path: Path
) -> None:
    answer = gz("sample", named.folder, "--class", "cta", "--out", "out")
    assert answer.code == 2
    assert "there is no class 'cta'" in answer.text
    assert "did you mean 'cat'" in answer.text
    assert not (tmp_path / "out").exists()


def test_an_exported_file_knows_the_names(named: Run, gz: Gz, tmp_path: Path) -> None:
    assert gz("export", named.folder, "m.safetensors").code == 0
    assert gz("sample", "m.safetensors", "--class", "my dog", "--num", 1, "--out", "out").code == 0
    assert about(tmp_path / "out")["classes"] == {"2": "my dog"}
    assert load_run(tmp_path / "m.safetensors").class_names() == NAMES


def test_grids_and_the_page_show_the_names(named: Run, tmp_path: Path) -> None:
    samples = named.sample(class_labels=["cat", "my dog"], seed=1)
    plain = make_grid(samples.images, min_cell=64)
    shown = samples.grid()
    assert shown.image.height == plain.image.height + 12
    below = np.asarray(shown.image.convert("RGB"))[12:]
    assert np.array_equal(below[2:], np.asarray(plain.image.convert("RGB"))[2:])
    assert (np.asarray(shown.image.convert("L"))[:12] < 100).any()
    with Image.open(named.folder / "samples" / "step_00000004" / "grid.png") as preview:
        assert preview.height > plain.image.height
    assert "3 classes, by label: 0 a, b, 1 cat, 2 my dog" in (named.folder / "README.md").read_text()


def test_names_that_are_their_labels_are_not_shown() -> None:
    labels = {"class_labels": torch.tensor([0, 1])}
    assert captions_of(labels, {"0": "0", "1": "1"}) is None
    assert captions_of(labels, {"0": "0", "1": "7"}) == ["0", "7"]
    assert captions_of({}, {}) is None


def test_a_number_is_a_label_where_classes_are_called_by_numbers(caplog: pytest.LogCaptureFixture) -> None:
    names = ["2", "10", "11"]
    with caplog.at_level(logging.WARNING):
        assert labels_of_names(2, names) == 2
    assert (
        "class_labels=2 is a label, and stands for the class '11'; the class called '2' has label 0"
        in caplog.text
    )
    assert labels_of_names("2", names) == 0
    assert labels_of_names(["10", 0], names) == [1, 0]
    assert labels_of_names("7", names) == 7
    with pytest.raises(UsageError, match="nothing says which classes"):
        labels_of_names("cat", None)
    assert labels_of_names(None, names) is None
