"""Scan orders and the depthwise 2-d convolution against recorded ones, one test a case."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden.manifest import golden_cases, golden_tensors

from genzoo.nn.depthwise import DepthwiseConv2d
from genzoo.nn.grid_order import grid_order, inverse_order

SET = "learning"
CASES = golden_cases(SET, "orders")
CONVOLUTIONS = [case for case in CASES if "kernel" in case]
GRIDS = [case for case in CASES if "height" in case and case not in CONVOLUTIONS]
LAYERS = [case for case in CASES if "height" not in case]
DIG = ("rows", "rows_reversed", "columns", "columns_reversed")


def by_name(cases: list[dict[str, Any]]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case["name"])


@by_name(GRIDS)
def test_orders_and_their_inverses_are_the_recorded_ones(case: dict[str, Any]) -> None:
    data = golden_tensors(SET, "orders", case["name"])
    assert set(data) == set(case["keys"])
    for key, expected in data.items():
        order = grid_order(case["height"], case["width"], key.removesuffix("_inverse"))
        ours = inverse_order(order) if key.endswith("_inverse") else order
        assert torch.equal(ours, expected), f"{case['name']}/{key}"


@by_name(LAYERS)
def test_four_orders_in_turn_are_what_dig_sees(case: dict[str, Any]) -> None:
    """DiG flips and transposes its stream after every block, and is row-major after a multiple of four."""
    data = golden_tensors(SET, "orders", case["name"])
    side = int(data["left"].numel() ** 0.5)
    ours = [grid_order(side, side, DIG[index % 4]) for index in range(len(data["seen"]))]
    assert torch.equal(torch.stack(ours), data["seen"])
    # its stream is left in the order that the next block would scan
    after = int(data["after_block"])
    left = [grid_order(side, side, name) for name in DIG]
    assert any(torch.equal(data["left"], order) for order in left)
    assert torch.equal(data["left"], left[after % 4])


@by_name(CONVOLUTIONS)
def test_convolutions_over_the_plane_equal_the_recorded_ones(case: dict[str, Any]) -> None:
    data = golden_tensors(SET, "orders", case["name"])
    tokens = data["tokens"]
    conv = DepthwiseConv2d(tokens.shape[2], (case["height"], case["width"]), kernel=case["kernel"]).double()
    assert torch.equal(conv.weight, data["identity_weight"])
    assert torch.equal(conv(tokens), tokens)
    conv.load_state_dict({"weight": data["weight"], "bias": data["bias"]})
    with_class = conv(torch.cat([tokens[:, :1] * 0 + 7, tokens], dim=1)).detach()
    torch.testing.assert_close(conv(tokens).detach(), data["out"], rtol=1e-11, atol=1e-11)
    assert torch.equal(with_class[:, 1:], conv(tokens))
    assert bool((with_class[:, 0] == 7).all())
