from types import SimpleNamespace

import pytest
import torch

from genzoo.core.errors import DataError
from genzoo.core.node import Node
from genzoo.core.registry import DATASETS, FEATURES
from genzoo.evaluation.features import build_network
from genzoo.evaluation.nearest_neighbour import (
    classify,
    mean_class_distance,
    nearest_neighbour,
    real_accuracy,
)

REAL = torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.0, 0.1], [5.0, 5.0], [5.1, 5.0], [5.0, 5.1], [9.0, 0.0]])
LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 2])


class TwoClasses:
    """Images of one value per class, with a spread."""

    num_classes = 2

    def __len__(self):
        return 8

    def fetch(self, index, generator=None):
        label = index % 2
        return {
            "pixels": torch.full((1, 2, 3), float(label) + 0.01 * index),
            "class_labels": torch.tensor(label),
        }


class FakeRun:
    folder = "runs/fake"

    def __init__(self, wrong=0):
        self.wrong = wrong

    def dataset(self):
        return TwoClasses()

    def sample(self, class_labels, seed, **options):
        pixels = [torch.full((1, 2, 3), float(label) + 0.02 * i) for i, label in enumerate(class_labels)]
        for i in range(self.wrong):
            pixels[i] = torch.full((1, 2, 3), 1.0 - class_labels[i])
        return type("Samples", (), {"pixels": torch.stack(pixels)})()


def test_majority_of_three_neighbours_decides():
    samples = torch.tensor([[0.2, 0.2], [4.0, 4.5]])
    assert classify(samples, REAL, LABELS).tolist() == [0, 1]


def test_tie_goes_to_the_nearest_neighbour():
    real = torch.tensor([[0.0], [1.0], [2.5]])
    assert classify(torch.tensor([[0.9]]), real, torch.tensor([4, 7, 9])).tolist() == [7]


def test_too_few_real_images_are_an_error():
    with pytest.raises(DataError, match="at least 3"):
        classify(REAL[:2], REAL[:2], LABELS[:2])


def test_class_distance_averages_over_classes_not_pairs():
    features = torch.tensor([[0.0], [2.0], [10.0], [14.0], [12.0], [99.0]])
    labels = torch.tensor([0, 0, 1, 1, 1, 2])
    assert mean_class_distance(features, labels) == pytest.approx((2.0 + 8 / 3) / 2)


def test_distance_without_pairs_is_an_error():
    with pytest.raises(DataError, match="two images"):
        mean_class_distance(torch.zeros(2, 3), torch.tensor([0, 1]))


def test_report_counts_wrong_classes():
    assert nearest_neighbour(FakeRun(), num=8)["accuracy"] == 1.0
    assert nearest_neighbour(FakeRun(wrong=2), num=8)["accuracy"] == 0.75


def test_report_measures_spread_against_real_images():
    assert nearest_neighbour(FakeRun(), num=8)["diversity"] == pytest.approx(2.0, rel=1e-4)


@pytest.fixture
def other_data():
    """A registered data set whose held-out part has its classes the other way round."""

    class Swapped(TwoClasses):
        def __init__(self, split="train"):
            super().__init__()
            self.split = split

        def fetch(self, index, generator=None):
            item = super().fetch(index)
            return item if self.split == "train" else {**item, "class_labels": 1 - item["class_labels"]}

    DATASETS.register("swapped")(Swapped)
    yield
    DATASETS._entries.pop("swapped")


@pytest.mark.usefixtures("other_data")
def test_the_same_samples_are_judged_by_held_out_images_too():
    class Run(FakeRun):
        plan = SimpleNamespace(data=Node("swapped", {"split": "train"}))

    result = nearest_neighbour(Run(), num=8, against={"split": "test"})
    assert result["accuracy"] == 1.0
    assert result["held_out_accuracy"] == 0.0
    assert result["held_out_diversity"] == pytest.approx(result["diversity"])
    assert set(nearest_neighbour(Run(), num=8)) == {"accuracy", "diversity"}


def test_real_images_are_judged_by_the_others():
    pictures = torch.tensor([[0.0], [0.1], [5.0], [5.1], [5.2], [0.2]])
    labels = torch.tensor([0, 0, 1, 1, 1, 1])
    assert real_accuracy(pictures, labels, pictures, labels, k=1) == pytest.approx(
        4 / 6
    )  # 0.1 and 0.2 differ
    assert real_accuracy(pictures[:2], labels[:2], pictures, labels, k=1, chunk=1) == 0.5


def test_features_of_a_network_take_the_place_of_pixels():
    def brightness_alone(weights, device):
        def look(images):
            grey = images.float().mean((1, 2, 3))
            return torch.stack([grey, 255 - grey, torch.ones_like(grey)], dim=1)

        return build_network(look)

    class Coloured(TwoClasses):
        def fetch(self, index, generator=None):
            item = super().fetch(index)
            return {**item, "pixels": item["pixels"].expand(3, 2, 3) / 2}

    class Run(FakeRun):
        def dataset(self):
            return Coloured()

        def sample(self, class_labels, seed, **options):
            made = super().sample(class_labels, seed, **options)
            made.pixels = made.pixels.expand(-1, 3, 2, 3) / 2
            return made

    FEATURES.register("brightness")(brightness_alone)
    try:
        result = nearest_neighbour(Run(wrong=2), num=8, k=1, features="brightness")
    finally:
        FEATURES._entries.pop("brightness")
    assert result["accuracy"] == 0.75
    assert result["real_accuracy"] == 1.0
