"""The fused kernels' formulas against every case of the `speed` set: outputs and every gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden.manifest import golden_cases
from golden.speed_cases import SET, TOLERANCE, check_adaln, check_conv
from torch import Tensor, nn

from genzoo.nn.modulation import gated_add_then_norm, repeat_rows


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("backend", ["torch", "auto"])
@pytest.mark.parametrize("case", golden_cases(SET, "conv"), ids=lambda case: case["name"])
def test_convolution_equals_golden(case: dict[str, Any], backend: str, dtype: torch.dtype) -> None:
    check_conv(case, backend, dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("case", golden_cases(SET, "adaln"), ids=lambda case: case["name"])
def test_residual_and_norm_equal_golden(case: dict[str, Any], dtype: torch.dtype) -> None:
    def plain(
        x: Tensor, gate: Tensor, branch: Tensor, shift: Tensor, scale: Tensor, *, eps: float
    ) -> tuple[Tensor, Tensor]:
        norm = nn.LayerNorm(x.shape[2], eps=eps, elementwise_affine=False)
        gate, shift, scale = (repeat_rows(values, len(x)) for values in (gate, shift, scale))
        return gated_add_then_norm(norm, x, gate, branch, shift, scale)

    check_adaln(case, plain, dtype)
