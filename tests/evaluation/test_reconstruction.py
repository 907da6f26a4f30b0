"""Colours and reconstructions: CIEDE2000 against its published pairs, and which pictures are judged."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from genzoo.core.errors import DataError, UsageError
from genzoo.core.node import Node
from genzoo.data.emoji import Emoji
from genzoo.evaluation.colour import ciede2000, lab
from genzoo.evaluation.reconstruction import reconstruction

# of Table 1 of Sharma, Wu and Dalal (2005): greys, both signs of a turn, hues around 0, dark colours
PAIRS = [
    ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
    ((50.0, -1.3802, -84.2814), (50.0, 0.0, -82.7485), 1.0000),
    ((50.0, 0.0, 0.0), (50.0, -1.0, 2.0), 2.3669),
    ((50.0, 2.49, -0.001), (50.0, -2.49, 0.0009), 7.1792),
    ((50.0, 2.49, -0.001), (50.0, -2.49, 0.0011), 7.2195),
    ((50.0, 2.5, 0.0), (50.0, 0.0, -2.5), 4.3065),
    ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
    ((50.0, 2.5, 0.0), (58.0, 24.0, 15.0), 19.4535),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((35.0831, -44.1164, 3.7933), (35.0232, -40.0716, 1.5901), 1.8645),
    ((6.7747, -0.2908, -2.4247), (5.8714, -0.0985, -2.2286), 0.6377),
]


@pytest.mark.parametrize(("one", "other", "expected"), PAIRS)
def test_differences_are_the_published_ones(one: Any, other: Any, expected: float) -> None:
    first, second = torch.tensor([one]).double(), torch.tensor([other]).double()
    assert float(ciede2000(first, second)) == pytest.approx(expected, abs=5e-5)
    assert float(ciede2000(second, first)) == pytest.approx(expected, abs=5e-5)


def test_lab_of_the_primaries_and_of_white() -> None:
    colours = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1], [-1, -1, -1]])
    expected = torch.tensor(
        [[53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86], [100, 0, 0], [0, 0, 0]]
    ).double()
    assert torch.allclose(lab(colours[:, :, None, None])[:, :, 0, 0], expected, atol=0.01)


class Darker(torch.nn.Module):
    """Gives back pictures a little darker, and remembers them."""

    def reconstruct(self, pixels: Tensor) -> Tensor:
        self.shown = pixels
        return pixels - 0.2


def run_of(data: dict[str, Any]) -> tuple[Any, Darker]:
    model = Darker()
    plan = SimpleNamespace(data=Node("emoji", data))
    dataset = Emoji(**data)
    return (
        SimpleNamespace(task=lambda: SimpleNamespace(model=model), plan=plan, dataset=lambda: dataset),
        model,
    )


def test_held_out_pictures_are_those_that_training_did_not_see() -> None:
    run, model = run_of({"styles": ["noto"], "hold_out_fraction": 0.01, "split": "train"})
    found = reconstruction(run, num=5, pictures="held_out")
    assert found["psnr"] == pytest.approx(20.0, abs=1e-3)  # 0.1 of the range
    assert found["num"] == 5
    assert "latent_deviation" not in found
    assert 0 < found["ciede2000"] < 10
    seen = torch.stack([run.dataset().fetch(index)["pixels"] for index in range(len(run.dataset()))])
    assert not any((picture == seen).flatten(1).all(1).any() for picture in model.shown)
    reconstruction(run, num=5)
    assert all((picture == seen).flatten(1).all(1).any() for picture in model.shown)


def test_what_cannot_be_measured_is_said() -> None:
    run, _ = run_of({"styles": ["noto"]})
    with pytest.raises(DataError, match="training saw every picture"):
        reconstruction(run, pictures="held_out")
    with pytest.raises(UsageError, match="use one of seen, held_out"):
        reconstruction(run, pictures="new")
