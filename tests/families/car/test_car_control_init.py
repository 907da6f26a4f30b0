"""The start of the control encoder: in narrow layers the released one lets controls fade."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from genzoo.core.errors import UsageError
from genzoo.families.car.control.model import CAR

NARROW: dict[str, Any] = {
    "depth": 2, "hidden_size": 16, "num_heads": 2, "patch_nums": [1, 2], "num_classes": 3, "in_channels": 4,
    "codebook_size": 8, "control_channels": [8, 12, 20],
}  # fmt: skip


def spread(**options: Any) -> float:
    """How much the features of the finest scale vary over random controls."""
    torch.manual_seed(0)
    car = CAR(**NARROW, **options)
    control = [torch.rand(6, *shape) * 2 - 1 for shape in car.control_shapes()]
    with torch.no_grad():
        return float(car.encode_control(control)[-1].std(dim=0).mean())


def test_fan_in_keeps_a_control_visible_where_the_released_start_fades() -> None:
    assert spread() < 1e-3
    assert spread(control_init="fan_in") > 3e-2


def test_the_zero_projections_stay_zero() -> None:
    car = CAR(**NARROW, control_init="fan_in", injection="zero_conv_add")
    assert all((parameter == 0).all() for parameter in car.car_zero_linear.parameters())


def test_an_unknown_start_is_named() -> None:
    with pytest.raises(UsageError, match="did you mean 'fan_in'"):
        CAR(**NARROW, control_init="fan_inn")
