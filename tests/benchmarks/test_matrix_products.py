"""The floor of a step: every product is counted by its shapes, packed or not, and run again."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

from benchmarks.cases import matrix_products
from benchmarks.cases.matrix_products import Recorder, floor_of, unpacked
from benchmarks.registry import Options
from genzoo.nn.evaluating import evaluating


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(180, 270), nn.GELU(), nn.Linear(270, 2))


def test_calls_of_a_training_step_are_counted_forward_and_backward() -> None:
    net, x = model(), torch.randn(7, 3, 8, 8)
    with Recorder() as recorder:
        net(x).square().sum().backward()
    counted: dict[str, int] = {}
    for (func, _), number in recorder.calls.items():
        name = func.overloadpacket.__name__
        counted[name] = counted.get(name, 0) + number
    # a gradient of the weights for each linear layer, and of its input
    assert counted == {"convolution": 1, "addmm": 2, "mm": 4, "convolution_backward": 1}


@torch.no_grad()
def test_the_floor_of_an_evaluated_model_is_that_of_plain_products() -> None:
    net, x = model(), torch.randn(7, 3, 8, 8)

    def step() -> None:
        with evaluating(net):
            net(x)

    found = floor_of(step, "cpu", 1)
    assert found["calls"] == 3
    assert found["products_ms"] > 0
    assert found["convolutions_ms"] > 0


def test_packing_is_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENZOO_PACK", raising=False)
    with unpacked():
        assert os.environ["GENZOO_PACK"] == "0"
    assert "GENZOO_PACK" not in os.environ
    monkeypatch.setenv("GENZOO_PACK", "1")
    with unpacked():
        pass
    assert os.environ["GENZOO_PACK"] == "1"


def test_a_row_states_the_step_its_floor_and_the_ratio() -> None:
    a, b = torch.randn(30, 40), torch.randn(40, 50)
    row = matrix_products.row_of("tiny", lambda: a @ b, Options(3, {}))
    assert row["calls"] == 1
    assert row["convolutions_ms"] == 0
    assert row["times_floor_min"] <= row["times_floor"] <= row["times_floor_max"]
    assert row["ms"]["genzoo"]["min"] <= row["ms"]["genzoo"]["median"]
