"""Routing of tokens against recorded routes, one test a case."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden.manifest import golden_cases, golden_tensors

from genzoo.nn.routing import gathered, kept_places, num_kept, scattered

SET = "learning"


@pytest.mark.parametrize("case", golden_cases(SET, "routing"), ids=lambda case: case["name"])
def test_routes_are_the_recorded_ones_in_the_order_of_places(case: dict[str, Any]) -> None:
    data, rate = golden_tensors(SET, "routing", case["name"]), case["selection_rate"]
    assert num_kept(data["x"].shape[1], rate) == case["num_kept"]
    kept = kept_places(data["noise"], rate)
    assert torch.equal(kept, data["ids_ordered"])
    assert torch.equal(kept, data["ids_upstream"].sort(dim=1).values)  # the same tokens, whatever their order
    tokens = gathered(data["x"], kept)
    assert torch.equal(tokens, data["kept_ordered"])
    # what stands in for the blocks; no order changes it
    routed = 2 * tokens + tokens.mean(dim=1, keepdim=True)
    assert torch.equal(scattered(data["x"], kept, routed), data["restored"])
    shuffled = data["kept_upstream"]
    assert torch.equal(shuffled, data["x"].gather(1, data["ids_upstream"][..., None].expand_as(shuffled)))
