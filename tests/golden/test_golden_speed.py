"""The fused kernels' formulas against every case of the `speed` set: outputs and every gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden.manifest import golden_cases
from golden.speed_cases import SET, TOLERANCE, check_conv


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("backend", ["torch", "auto"])
@pytest.mark.parametrize("case", golden_cases(SET, "conv"), ids=lambda case: case["name"])
def test_convolution_equals_golden(case: dict[str, Any], backend: str, dtype: torch.dtype) -> None:
    check_conv(case, backend, dtype)
