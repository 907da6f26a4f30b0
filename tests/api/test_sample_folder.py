"""Which folder samples go to: it grows, it is never somebody else's, and each set of options has its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from recipe_cases import TINY

from genzoo.api.run import Run, load_run, train
from genzoo.api.sampling.claim import default_folder, row_digests
from genzoo.core.errors import UsageError
from genzoo.core.recipe import recipe_from


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("0*.png"))}


def test_more_samples_of_the_same_settings_go_beside_those_that_are_there(
    trained: Run, tmp_path: Path
) -> None:
    folder = trained.sample_to(tmp_path / "out", num=5)
    first = pictures(folder)
    untouched = (folder / "000003.png").stat().st_mtime_ns
    trained.sample_to(folder, num=7)
    assert pictures(folder) == pictures(trained.sample_to(tmp_path / "seven", num=7))
    assert (folder / "000003.png").stat().st_mtime_ns == untouched
    assert (folder / "samples.json").read_text() == (tmp_path / "seven/samples.json").read_text()
    grid = (folder / "grid.png").read_bytes()
    trained.sample_to(folder, num=5)  # fewer than there are: nothing is taken away
    assert json.loads((folder / "samples.json").read_text())["num"] == 7
    assert (folder / "grid.png").read_bytes() == grid
    assert {name: pictures(folder)[name] for name in first} == first


def test_a_longer_list_of_labels_extends_and_another_one_is_refused(trained: Run, tmp_path: Path) -> None:
    folder = trained.sample_to(tmp_path / "out", class_labels=[4, 1])
    trained.sample_to(folder, class_labels=[4, 1, 7])
    assert [row["class_labels"] for row in json.loads((folder / "samples.json").read_text())["samples"]] == [
        4,
        1,
        7,
    ]
    with pytest.raises(UsageError, match=r'samples: .*"class_labels": 1.* there, .*"class_labels": 2'):
        trained.sample_to(folder, class_labels=[4, 2])


@pytest.mark.parametrize("foreign", ["notes.txt", "cats/1.png", "grid.png", ".hidden"])
def test_a_folder_with_anything_of_somebody_else_is_not_written(
    trained: Run, tmp_path: Path, foreign: str
) -> None:
    theirs = tmp_path / "photos" / foreign
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    with pytest.raises(UsageError, match=r"not a folder of samples"):
        trained.sample_to(tmp_path / "photos", num=1)
    with pytest.raises(UsageError, match=r"not a folder of samples"):
        trained.sample(num=1).save(tmp_path / "photos")
    assert [path for path in (tmp_path / "photos").rglob("*") if path.is_file()] == [theirs]
    with pytest.raises(UsageError, match="is a file"):
        trained.sample_to(theirs, num=1)


def test_a_samples_json_of_another_program_is_left_alone(trained: Run, tmp_path: Path) -> None:
    for index, content in enumerate(('{"images": []}', "[1]", '{"samples": 3}')):
        path = tmp_path / str(index) / "samples.json"
        path.parent.mkdir()
        path.write_text(content)
        with pytest.raises(UsageError, match="not written by genzoo"):
            trained.sample_to(path.parent, num=1)
        assert path.read_text() == content


def test_an_empty_folder_and_left_overs_of_a_killed_call_are_free(trained: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.tmp-1-ab-000000.png").write_bytes(b"half")
    assert len(pictures(trained.sample_to(tmp_path / "out", num=2))) == 2


def test_samples_of_other_weights_under_the_same_name_are_refused(trained: Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained.folder, copy, ignore=shutil.ignore_patterns("samples"))
    folder = load_run(copy).sample_to(tmp_path / "out", num=2)
    shutil.rmtree(copy)
    train(recipe_from({**TINY, "train": {**TINY["train"], "seed": 5}, "report": []}), output=copy)
    other = load_run(copy)
    assert other.checkpoint().name == trained.checkpoint().name
    with pytest.raises(UsageError, match="weights_sha256"):
        other.sample_to(folder, num=2)


def test_each_set_of_options_has_a_readable_folder_of_its_own(tmp_path: Path) -> None:
    def name(**options: object) -> str:
        return default_folder(tmp_path, "step_00000006", 3, options).name

    assert name() == name(steps=None) == "step_00000006_seed_3"
    assert name(guidance_scale=4.0) == name(guidance_scale=4)
    found = [
        name(), name(guidance_scale=4.0), name(guidance_scale=4.5), name(class_labels=2),
        name(class_labels=[2]),
        name(prompt="a <new1> cat"), name(prompt="a <new1> cat with a hat on its head in the rain at sea"),
        name(prompt="a <new1> cat with a hat on its head in the rain at land"), name(weights="raw"),
    ]  # fmt: skip
    assert len(set(found)) == len(found)
    assert "_prompt-a-new1-cat_" in name(prompt="a <new1> cat")
    assert all("/" not in one and len(one) < 80 for one in [*found, name(prompt="../../x")])


def test_pictures_that_steer_are_known_by_their_pixels() -> None:
    pair = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    assert len(set(row_digests(pair))) == 2
    assert row_digests(pair[:1].expand(4, -1, -1, -1)) == row_digests(pair)[:1] * 4
    assert row_digests(torch.tensor([1, 2])) == row_digests(["a", "b"]) == []


@pytest.mark.parametrize("name", ["s.mp4", "cat.PNG", "all.npz"])
def test_a_folder_named_like_a_file_is_refused_before_anything_is_made(
    name: str, trained: Run, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="named like a file") as caught:
        trained.sample_to(tmp_path / name, num=1, steps=1)
    assert str((tmp_path / name).with_suffix("")) in str(caught.value)
    assert not (tmp_path / name).exists()
    (tmp_path / name).mkdir()  # somebody's own choice
    assert trained.sample_to(tmp_path / name, num=1, steps=1).is_dir()
