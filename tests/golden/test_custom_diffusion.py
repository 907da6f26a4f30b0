"""Every case of the golden manifest of Custom Diffusion, by kind; a kind without a check fails."""

from __future__ import annotations

import pytest
from golden.custom_diffusion_checks import CHECKS, manifest_cases

CASES = manifest_cases()


@pytest.mark.parametrize("name", CASES)
def test_case_equals_the_official_code(name: str) -> None:
    case = CASES[name]
    assert case["kind"] in CHECKS, f"nothing checks cases of the kind {case['kind']!r}"
    CHECKS[case["kind"]](case)
