"""Concept lists and the data set behind them: what is read, how it is paired and drawn, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families.custom_diffusion.conftest import draw_pictures
from PIL import Image

from genzoo.core.errors import DataError, GenzooError, UsageError
from genzoo.core.seeds import generator_for
from genzoo.families.custom_diffusion.data.augmentation import (
    PAPER_LARGE,
    PAPER_SMALL,
    GeneratorDraws,
    augment,
    paper_placement,
)
from genzoo.families.custom_diffusion.data.concept_list import read_concepts
from genzoo.families.custom_diffusion.data.dataset import NO_BOX, ConceptImages

Listed = Callable[..., Path]


def test_items_pair_each_concept_picture_with_one_of_its_class(listed: Listed) -> None:
    data = ConceptImages(str(listed("cat", "pot")), image_size=16)
    assert len(data) == 9  # the larger of 3 + 2 and 5 + 4
    assert data.modifier_tokens == ["<new1>", "<new2>"]
    assert data.phrases == ["<new1> cat", "<new2> pot"]
    shown = [data.fetch(index) for index in range(9)]
    cat, pot = "photo of a <new1> cat", "photo of a <new2> pot"
    assert [item["captions"] for item in shown] == [cat, cat, cat, pot, pot, cat, cat, cat, pot]
    assert [item["class_captions"] for item in shown] == ["cat"] * 5 + ["pot"] * 4
    assert torch.equal(shown[0]["pixels"], shown[5]["pixels"])
    assert shown[0]["pixels"].shape == shown[0]["class_pixels"].shape == (3, 16, 16)


@pytest.mark.parametrize("rule", ["official", "official_crop", "diffusers", "paper"])
def test_keys_name_pixels_that_never_change_and_boxes_where_the_picture_lies(
    listed: Listed, rule: str
) -> None:
    data = ConceptImages(str(listed("cat")), image_size=48, augmentation=rule, class_crop="centre")
    known: dict[str, torch.Tensor] = {}
    num_named = num_boxed = 0
    for position in range(60):
        item = data.fetch(position, generator_for("test", position))
        for pixels, key in ((item["pixels"], item["key"]), (item["class_pixels"], item["class_key"])):
            if key:
                num_named += 1
                assert torch.equal(known.setdefault(key, pixels), pixels)
        top, bottom, left, right = item["box"].tolist()
        if (top, bottom, left, right) != NO_BOX:
            num_boxed += 1
            outside = torch.ones(48, 48, dtype=torch.bool)
            outside[top:bottom, left:right] = False
            assert not item["pixels"][:, outside].any()
    assert num_named >= 60  # every class picture has one
    assert num_boxed > 5
    random = ConceptImages(str(listed("cat")), image_size=16)
    assert not random.fetch(1, generator_for("test", 1))["class_key"]


def test_pictures_may_come_from_another_data_set() -> None:
    robot = {"name": "emoji", "names": ["robot"], "styles": ["noto", "fluent_3d"]}
    others = {"name": "emoji", "names": ["cat face", "dog face"], "styles": ["noto"]}
    data = ConceptImages(
        [{"instance_prompt": "photo of a <new1> robot", "instance_data": robot, "class_data": others}],
        image_size=32,
    )
    assert len(data.instances) == 2
    assert {data.fetch(index)["class_captions"] for index in range(2)} == {
        "a noto emoji of a cat face",
        "a noto emoji of a dog face",
    }


def test_folders_are_looked_for_beside_the_list(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "lists" / "cat", 2)
    path = tmp_path / "lists" / "concepts.json"
    path.write_text(json.dumps([{"instance_prompt": "photo of a <new1> cat", "instance_data_dir": "cat"}]))
    (concept,) = read_concepts(path)
    assert len(concept.instances) == 2
    assert len(ConceptImages(str(path), image_size=16, regularise=False)) == 2


def test_pictures_in_sub_folders_are_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = draw_pictures(tmp_path / "cat", 1)
    draw_pictures(folder / "batch1", 4)
    (folder / "._0.png").write_bytes(b"what macOS leaves")
    entry = {"instance_prompt": "photo of a <new1> cat", "instance_data_dir": str(folder)}
    assert len(read_concepts([entry])[0].instances) == 1
    assert "1 entries are no pictures and are left out: ['batch1/']" in caplog.text
    (folder / "0.png").unlink()
    with pytest.raises(DataError, match=r"(?s)holds no pictures.*batch1/; pictures in sub-folders are not"):
        read_concepts([entry])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"instance_prompt": None}, "instance_prompt is missing"),
        ({"instance_data_dir": None}, "instance_data_dir is missing"),
        ({"instance_data_dir": "nowhere"}, "there is no such folder"),
        ({"class_prompt": "<new1> cat"}, "class_prompt has a new word"),
        ({"class_prompt": None}, "needs a class_prompt"),
        ({"class_data_dir": None}, "has no regularisation pictures"),
        ({"class_promt": "cat"}, "did you mean 'class_prompt'"),
        ({"class_prompt": 3}, "class_prompt must be text"),
    ],
)
def test_wrong_entries_are_named(listed: Listed, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ConceptImages(str(listed("cat", **changes)), image_size=16)


def test_fewer_class_pictures_than_asked_are_refused(listed: Listed) -> None:
    with pytest.raises(DataError, match="has 5 regularisation pictures, not 6"):
        ConceptImages(str(listed("cat")), image_size=16, num_class_images=6)
    assert len(ConceptImages(str(listed("cat")), image_size=16, num_class_images=4).classes) == 4


def test_empty_and_unreadable_folders_are_refused(listed: Listed, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("nothing to see")
    with pytest.raises(DataError, match="holds no pictures"):
        ConceptImages(str(listed("cat", instance_data_dir=str(empty))), image_size=16)
    broken = draw_pictures(tmp_path / "broken", 2)
    (broken / "1.png").write_bytes((broken / "1.png").read_bytes()[:60])
    with pytest.raises(DataError, match="cannot be decoded") as caught:
        ConceptImages(str(listed("cat", instance_data_dir=str(broken))), image_size=16)
    assert "1.png" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not JSON"), ("{}", "non-empty list"), ("[]", "non-empty list"), ('["cat"]', "is a mapping")],
)
def test_files_that_are_no_concept_list_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "concepts.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_concepts(path)
    with pytest.raises(DataError, match="cannot read the concept list"):
        read_concepts(tmp_path / "absent.json")


def test_unknown_settings_are_refused(listed: Listed) -> None:
    for settings in ({"augmentation": "offical"}, {"class_crop": "center"}):
        with pytest.raises(UsageError, match="is not known"):
            ConceptImages(str(listed("cat")), **settings)
    for section in ({"names": ["robot"]}, {"name": "emoji", "colour": "red"}, {"name": "emojis"}):
        entry = {"instance_prompt": "a <new1> robot", "instance_data": section}
        with pytest.raises(GenzooError, match=r"emoji|needs a name"):
            ConceptImages([entry], regularise=False)


def test_the_papers_rule_goes_from_two_fifths_to_seven_and_says_so_behind_the_prompt() -> None:
    sizes = {}
    for position in range(400):
        place = paper_placement(100, GeneratorDraws(generator_for("paper", position)))
        sizes[place.r] = place
        assert place.prefix == ""
        assert place.masked == (place.r < 100)
        words = PAPER_LARGE if place.r > 100 else PAPER_SMALL if place.r < 60 else ("",)
        assert place.suffix in words
    assert min(sizes) == 40
    assert max(sizes) == 140
    image = Image.new("RGB", (60, 60), "red")
    found = augment(
        image, "photo of a cat", GeneratorDraws(generator_for("paper", 3)), size=100, rule="paper"
    )
    assert found.prompt.startswith("photo of a cat")
