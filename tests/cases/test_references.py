"""Runs that see the same pictures can be compared, however each of them was augmented."""

from __future__ import annotations

from pathlib import Path

import pytest
from users_cases import Gz, fill

from genzoo.core.types import Dataset
from genzoo.data.emoji import Emoji
from genzoo.data.image_folder import ImageFolder
from genzoo.data.picture_sets import DatasetPictures, content_hash


def test_runs_that_differ_in_flips_have_one_reference(shared: Path, gz: Gz) -> None:
    judge = ("--protocol", "quick-pixels", "--num", 6)
    for name, flip in (("plain", "false"), ("flipped", "true")):
        recipe = (shared / "tiny.yaml", f"data.root={shared / 'abc'}", f"data.horizontal_flip={flip}")
        assert gz("train", *recipe, "--output", name).code == 0
    assert gz("evaluate", "plain", *judge, "--output", "plain.json").code == 0
    answer = gz("evaluate", "flipped", *judge, "--compare", "plain.json")
    assert answer.code == 0, answer.text


@pytest.mark.parametrize("kind", ["folder", "emoji"])
def test_the_hash_sees_pictures_and_not_flips(tmp_path: Path, kind: str) -> None:
    fill(tmp_path / "p" / "a", 3)
    fill(tmp_path / "p" / "b", 2, seed=1)

    def dataset(size: int, flip: bool) -> Dataset:
        if kind == "emoji":
            return Emoji(image_size=size, names=["robot"], horizontal_flip=flip)
        return ImageFolder(tmp_path / "p", image_size=size, horizontal_flip=flip)

    plain, flipped, other = (
        content_hash(DatasetPictures(dataset(*one))) for one in ((32, False), (32, True), (64, True))
    )
    assert plain == flipped
    assert plain != other
    assert dataset(32, False).fingerprint != dataset(32, True).fingerprint  # a run that goes on has its own
