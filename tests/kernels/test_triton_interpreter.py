"""Runs the interpreted cases where Triton interprets its kernels: in another process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CASES = sorted(Path(__file__).parent.glob("interpreted_*_cases.py"))


@pytest.mark.slow
@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_kernels_agree_with_the_reference_under_the_interpreter(cases: Path) -> None:
    pytest.importorskip("triton", reason="Triton has no wheels for this platform")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", str(cases)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    counts = re.findall(r"(\d+) (passed|skipped|deselected)", result.stdout.splitlines()[-1])
    assert [kind for _, kind in counts] == ["passed"], result.stdout[-500:]
