"""What every registered data set keeps."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from smallest import Workshop, arguments
from torch import Tensor

from genzoo.core.contracts import able
from genzoo.core.contracts.datasets import FetchesMany, augments, labels_of
from genzoo.core.registry import DATASETS
from genzoo.data.collate import collate

CHANGES: dict[str, list[dict[str, Any]]] = {
    "digits": [{"image_size": 16}, {"channels": 3}, {"split": "train"}],
    "image_folder": [
        {"image_size": 6}, {"channels": 1}, {"horizontal_flip": False}, {"include_classes": ["cats"]},
    ],
    "image_shards": [{"image_size": 6}, {"channels": 1}, {"horizontal_flip": False}, {"captions": False}],
    "video_folder": [
        {"image_size": 6}, {"num_frames": 2}, {"channels": 1}, {"horizontal_flip": False},
        {"frame_interval": 2},
    ],
    "emoji": [
        {"image_size": 64}, {"names": ["cactus"]}, {"styles": ["fluent_3d"]}, {"classes": "none"},
        {"caption": "{name}"}, {"horizontal_flip": True},
    ],
    "placed_digits": [{"image_size": 20}, {"grid": 2}, {"places_per_digit": 2}, {"split": "train"}],
    "moving_digits": [
        {"image_size": 14}, {"num_frames": 2}, {"max_speed": 1}, {"grid": 2}, {"clips_per_digit": 2},
        {"split": "train"},
    ],
    "moving_emoji": [
        {"image_size": 40}, {"num_frames": 2}, {"max_speed": 1}, {"motions": ["left", "up"]},
        {"classes": "none"}, {"caption": "{name}"},
    ],
    "concepts": [
        {"image_size": 64}, {"augmentation": "diffusers"}, {"augment_size": False},
        {"horizontal_flip": False}, {"class_crop": "centre"}, {"num_class_images": 1}, {"regularise": False},
    ],
}  # fmt: skip
every_set = pytest.mark.parametrize("name", list(DATASETS))


@pytest.fixture(scope="module")
def made(workshop: Workshop) -> Callable[..., Any]:
    @cache
    def build(name: str) -> Any:
        return workshop.build(DATASETS, name)

    return build


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    pairs = [(first[name], second[name]) for name in first]
    return first.keys() == second.keys() and all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs
    )


@every_set
def test_items_are_pixels_of_the_shape_that_is_told(made: Callable[..., Any], name: str) -> None:
    dataset = made(name)
    item = dataset.fetch(0)
    assert item["pixels"].shape == tuple(dataset.sample_shape)
    assert item["pixels"].dtype == torch.float32
    assert item["pixels"].abs().max() <= 1
    if dataset.num_classes:
        assert 0 <= int(item["class_labels"]) < dataset.num_classes
        assert dataset.class_names is None or len(dataset.class_names) == dataset.num_classes


@every_set
def test_fetch_is_a_function_of_index_and_generator(made: Callable[..., Any], name: str) -> None:
    dataset, last = made(name), len(made(name)) - 1
    before = torch.random.get_rng_state()
    plain, drawn = dataset.fetch(last), dataset.fetch(last, generator(1))
    dataset.fetch(0, generator(2))
    assert same(dataset.fetch(last), plain)
    assert same(dataset.fetch(last, generator(1)), drawn)
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator was used"


@every_set
def test_a_set_that_does_not_augment_makes_no_use_of_a_generator(made: Callable[..., Any], name: str) -> None:
    dataset = made(name)
    drawn = [dataset.fetch(0, generator(seed)) for seed in range(12)]
    assert augments(dataset) != all(same(item, dataset.fetch(0)) for item in drawn)


@every_set
def test_labels_that_are_known_before_are_those_of_the_items(made: Callable[..., Any], name: str) -> None:
    dataset = made(name)
    labels = labels_of(dataset)
    shown = range(0, len(dataset), max(1, len(dataset) // 5))
    for index in shown if labels is not None else ():
        assert int(dataset.fetch(index)["class_labels"]) == int(labels[index])  # type: ignore[index]


@every_set
def test_several_items_at_once_are_the_items_one_by_one(made: Callable[..., Any], name: str) -> None:
    dataset = made(name)
    together = able(dataset, FetchesMany)
    indices = [len(dataset) - 1, 0]
    one_by_one = collate([dataset.fetch(index, generator(index)) for index in indices])
    if together is not None:
        found = dict(together.fetch_many(indices, [generator(index) for index in indices]))
        assert same(one_by_one, found)


@every_set
def test_a_copy_in_another_process_gives_the_same_items(made: Callable[..., Any], name: str) -> None:
    dataset = made(name)
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.fingerprint == dataset.fingerprint
    assert same(copy.fetch(0, generator(1)), dataset.fetch(0, generator(1)))


@every_set
def test_equal_settings_have_one_fingerprint(made: Callable[..., Any], workshop: Workshop, name: str) -> None:
    assert workshop.build(DATASETS, name).fingerprint == made(name).fingerprint


@every_set
def test_the_fingerprint_changes_with_each_setting(
    made: Callable[..., Any], workshop: Workshop, name: str
) -> None:
    seen = {made(name).fingerprint: {}}
    for change in CHANGES.get(name) or flipped(name):
        fingerprint = workshop.build(DATASETS, name, **change).fingerprint
        assert fingerprint not in seen, f"{change} like {seen[fingerprint]}"
        seen[fingerprint] = change


def flipped(name: str) -> list[dict[str, Any]]:
    """For a data set that is not in the table: each of its switches the other way round."""
    given = arguments(DATASETS, name)
    found = inspect.signature(DATASETS.get(name)).parameters.values()
    return [{p.name: not given.get(p.name, p.default)} for p in found if isinstance(p.default, bool)]
