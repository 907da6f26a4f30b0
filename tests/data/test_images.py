"""Image folders: classes, layout, and every way a folder can be wrong."""

from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile_images import bad_bytes, encode, photo
from PIL import Image

import genzoo.data  # noqa: F401
from genzoo.core.errors import DataError
from genzoo.core.registry import DATASETS
from genzoo.core.seeds import generator_for
from genzoo.data.image_folder import ImageFolder
from genzoo.data.image_listing import Names
from genzoo.data.label_check import check_labels
from genzoo.data.natural_order import natural
from genzoo.data.sample_stream import SampleStream, batches
from genzoo.pictures.grid import make_grid


def fill(root: Path, tree: dict[str, int]) -> Path:
    """Folders with so many pictures each, every one of its own grey."""
    shade = 0
    for name, count in tree.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("RGB", (12, 9), (shade, shade, shade)).save(root / name / f"{i}.png")
            shade += 10
    return root


def test_classes_are_the_folders_in_natural_order(tmp_path: Path) -> None:
    images = ImageFolder(fill(tmp_path, {"class10": 1, "class2": 2, "Class1": 1}), image_size=4)
    assert images.class_names == ["Class1", "class2", "class10"]
    assert images.num_classes == 3
    assert images.labels is not None
    assert images.labels.tolist() == [0, 1, 1, 2]
    assert images.sample_shape == (3, 4, 4)
    item = images.fetch(3)
    assert item["class_labels"].dtype == torch.int64
    assert item["class_labels"].shape == ()
    assert item["pixels"].shape == (3, 4, 4)
    # class10 was written first: the grey 0
    assert item["pixels"].unique().tolist() == [-1.0]


def test_labels_are_numbered_as_by_other_code(tmp_path: Path) -> None:
    # the four of UCF-101's classes whose order depends on upper and lower case
    names = ["Hammering", "HammerThrow", "JumpingJack", "JumpRope", "apple", "Zebra"]
    images = ImageFolder(fill(tmp_path, dict.fromkeys(names, 1)), image_size=4)
    assert images.class_names == sorted(names)
    assert images.class_names[:2] == ["HammerThrow", "Hammering"]


def test_a_flat_folder_has_no_classes(tmp_path: Path) -> None:
    images = ImageFolder(fill(tmp_path, {".": 3}), image_size=4)
    assert (len(images), images.num_classes, images.class_names) == (3, None, None)
    assert set(images.fetch(0)) == {"pixels"}


def test_class_names_choose_and_order(tmp_path: Path) -> None:
    root = fill(tmp_path, {"ant": 1, "bee": 2, "cat": 1})
    images = ImageFolder(root, image_size=4, class_names=["cat", "ant"])
    assert images.class_names == ["cat", "ant"]
    assert images.labels is not None
    assert images.labels.tolist() == [0, 1]
    with pytest.raises(DataError, match=r"no class folder 'bea'; did you mean 'bee'"):
        ImageFolder(root, class_names=["bea"])
    with pytest.raises(DataError, match="twice"):
        ImageFolder(root, class_names=["ant", "ant"])


def test_pictures_lie_at_any_depth_of_a_class(tmp_path: Path) -> None:
    root = fill(tmp_path, {"a": 1, "a/deep/er": 2, "b": 1})
    assert ImageFolder(root, image_size=4).labels.tolist() == [0, 0, 0, 1]  # type: ignore[union-attr]


def test_hidden_files_do_not_count_and_others_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = fill(tmp_path, {"a": 2, ".cache": 1})
    (root / "a" / ".hidden.png").write_bytes(b"x")
    (root / "a" / "notes.txt").write_text("x")
    (root / "Thumbs.db").write_text("x")
    with caplog.at_level(logging.WARNING):
        images = ImageFolder(root, image_size=4)
    assert len(images) == 2
    assert sorted(images.listing.ignored) == ["Thumbs.db", "a/notes.txt"]
    assert "2 other file(s)" in caplog.text
    assert "notes.txt" in caplog.text


def run_in(root: Path) -> None:
    """A run that has drawn a preview, below root/runs."""
    fill(root, {"runs/first/samples/step_2": 1})
    (root / "runs/first/recipe.yaml").write_text("name: x\n")
    (root / "runs/first/status.json").write_text("{}")


@pytest.mark.parametrize("tree", [{"a": 2, "b": 1}, {".": 3}])
def test_runs_among_the_pictures_are_no_data(
    tree: dict[str, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = fill(tmp_path, tree)
    before = ImageFolder(root, image_size=4)
    run_in(root)
    make_grid(torch.zeros(4, 3, 8, 8, dtype=torch.uint8)).save(root / next(iter(tree)) / "grid.png")
    images = ImageFolder(root, image_size=4)
    assert (images.class_names, len(images)) == (before.class_names, 3)
    assert images.fingerprint == before.fingerprint
    assert f"runs{os.sep}" in caplog.text
    assert "grid.png" in caplog.text


def test_samples_among_the_classes_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = fill(tmp_path, {"a": 1, "b": 1})
    (root / "b" / "samples.json").write_text("{}")
    ImageFolder(root, image_size=4)
    assert "samples that genzoo made are among the classes: ['b']" in caplog.text
    caplog.clear()
    (root / "a" / "samples.json").write_text("{}")  # a data set of samples is one on purpose
    ImageFolder(root, image_size=4)
    assert "among the classes" not in caplog.text


@pytest.mark.parametrize("tree", [{}, {"empty": 0}, {"a": 1, "empty": 0}, {".": 1, "a": 1}])
def test_a_wrong_layout_is_drawn_right(tmp_path: Path, tree: dict[str, int]) -> None:
    with pytest.raises(DataError, match=r"root/cat/1\.jpg, root/dog/2\.png"):
        ImageFolder(fill(tmp_path, tree))


@pytest.mark.parametrize("root", ["missing", "nul\0byte", "x" * 300, "file.txt"])
def test_a_root_that_is_no_folder_is_named(tmp_path: Path, root: str) -> None:
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(DataError, match="where:"):
        ImageFolder(f"{tmp_path}/{root}")


def test_links_to_folders_are_followed_on_request_only(tmp_path: Path) -> None:
    root = fill(tmp_path / "root", {"a": 1})
    elsewhere = fill(tmp_path / "elsewhere", {".": 2})
    (root / "b").symlink_to(elsewhere)
    with pytest.raises(DataError, match="follow_links=true"):
        ImageFolder(root)
    (elsewhere / "loop").symlink_to(elsewhere)
    images = ImageFolder(root, image_size=4, follow_links=True)
    assert images.labels is not None
    assert images.labels.tolist() == [0, 1, 1]
    assert images.fetch(2)["pixels"].shape == (3, 4, 4)


def test_flips_come_from_the_generator_alone(tmp_path: Path) -> None:
    photo(9, 9).save(tmp_path / "photo.png")
    images = ImageFolder(tmp_path, image_size=9)
    plain = images.fetch(0)["pixels"]
    seen = [images.fetch(0, generator_for(seed))["pixels"] for seed in range(24)]
    flipped = [torch.equal(pixels, plain.flip(-1)) for pixels in seen]
    assert all(torch.equal(pixels, plain) or f for pixels, f in zip(seen, flipped, strict=True))
    assert 0 < sum(flipped) < 24
    unflipped = ImageFolder(tmp_path, image_size=9, horizontal_flip=False)
    assert not unflipped.augments
    assert all(torch.equal(unflipped.fetch(0, generator_for(seed))["pixels"], plain) for seed in range(24))


def test_grey_images_on_request(tmp_path: Path) -> None:
    photo().save(tmp_path / "photo.png")
    assert ImageFolder(tmp_path, image_size=8, channels=1).fetch(0)["pixels"].shape == (1, 8, 8)
    with pytest.raises(DataError, match="channels 1 or 3"):
        ImageFolder(tmp_path, channels=4)


def test_fingerprint_follows_content_and_settings_not_place(tmp_path: Path) -> None:
    one, two = fill(tmp_path / "one", {"a": 2, "b": 1}), fill(tmp_path / "two", {"a": 2, "b": 1})
    first = ImageFolder(one, image_size=8).fingerprint
    assert first == ImageFolder(two, image_size=8).fingerprint
    assert first != ImageFolder(one, image_size=4).fingerprint
    assert first != ImageFolder(one, image_size=8, class_names=["b", "a"]).fingerprint
    photo().save(two / "a" / "0.png")
    assert first != ImageFolder(two, image_size=8).fingerprint


def test_a_bad_file_is_replaced_and_reported_through_the_stream(tmp_path: Path) -> None:
    root = fill(tmp_path, {"a": 3, "b": 3})
    (root / "a" / "1.png").write_bytes(bad_bytes()["truncated_half.png"])
    stream = SampleStream(ImageFolder(root, image_size=4), seed=0, max_bad=1)
    (micro,) = next(batches(stream, batch_size=6, per_device=6))
    assert len(micro["bad"]) == 1
    assert "1.png" in micro["bad"][0]
    assert micro["pixels"].shape == (6, 3, 4, 4)
    with pytest.raises(DataError, match=r"1 unreadable.*max_bad=0"):
        next(batches(SampleStream(ImageFolder(root, image_size=4), seed=0), batch_size=6, per_device=6))


def test_a_picture_too_long_to_crop_is_named(tmp_path: Path) -> None:
    Image.new("L", (200_000, 1)).save(tmp_path / "strip.png")
    with pytest.raises(DataError, match=r"(?s)too long.*strip\.png"):
        ImageFolder(tmp_path, image_size=256).fetch(0)


def test_labels_beyond_the_model_are_refused(tmp_path: Path) -> None:
    images: Any = ImageFolder(fill(tmp_path / "c", {"a": 1, "b": 1, "c": 1}))
    flat: Any = ImageFolder(fill(tmp_path / "f", {".": 1}))
    check_labels(images, 3)
    check_labels(images, 7)
    check_labels(images, None)
    check_labels(flat, 0)
    with pytest.raises(DataError, match=r"labels 0 to 2, but the model has 2 classes"):
        check_labels(images, 2)
    with pytest.raises(DataError, match="no labels"):
        check_labels(flat, 10)


def test_file_names_are_kept_compactly_and_exactly(tmp_path: Path) -> None:
    names = ["a.png", "", "猫.png", os.fsdecode(b"caf\xe9.png"), "a/b.png"]
    packed = pickle.loads(pickle.dumps(Names(names)))
    assert list(packed) == names
    assert packed[1:3] == names[1:3]
    assert packed[-1] == "a/b.png"
    with pytest.raises(IndexError):
        packed[5]


def test_names_that_are_not_utf8_work(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.png")
    with open(path, "wb") as file:
        file.write(encode(photo(), "PNG"))
    images = ImageFolder(tmp_path, image_size=4)
    assert images.fetch(0)["pixels"].shape == (3, 4, 4)
    assert len(images.fingerprint) == 32


def test_natural_order() -> None:
    names = ["10", "9", "b2", "a10", "a9", "A1", "", "a"]
    assert sorted(names, key=natural) == ["", "9", "10", "a", "A1", "a9", "a10", "b2"]


def test_pixels_match_the_picture(tmp_path: Path) -> None:
    photo(16, 16).save(tmp_path / "photo.png")
    pixels = ImageFolder(tmp_path, image_size=16).fetch(0)["pixels"]
    expected = np.asarray(photo(16, 16), np.float32).transpose(2, 0, 1) / 127.5 - 1
    assert np.abs(pixels.numpy() - expected).max() < 1e-6


def test_the_card_names_the_data_sets(tmp_path: Path) -> None:
    assert {"digits", "emoji", "image_folder"} <= set(DATASETS.names())
    root = fill(tmp_path, {"a": 1})
    assert len(DATASETS.get("image_folder")(root, image_size=4)) == 1
