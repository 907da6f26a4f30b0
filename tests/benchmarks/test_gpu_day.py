"""The GPU day runs from end to end on tiny sizes, where there is no GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu_day
from benchmarks.gpu_day_parts import Bench

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_section_runs_without_a_failure(tmp_path: Path) -> None:
    # another process: the interpreter is chosen before the kernels are imported
    command = [sys.executable, "-m", "benchmarks.gpu_day", "--tiny", "--out", str(tmp_path / "day.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=850)
    result = json.loads((tmp_path / "day.json").read_text())
    assert (done.returncode, result["failures"]) == (0, []), done.stdout + done.stderr
    assert {*gpu_day.sections()} <= {*result}
    errors = [case for case in result["correctness"].values() if max(case.values()) > 2**-7]
    assert len(result["correctness"]) == 2
    assert not errors
    assert result["crossover"]["16 tokens"]["dim over dit"] > 0


def test_a_case_that_fails_is_told_and_the_day_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(bench: Bench) -> dict[str, object]:
        raise RuntimeError("no kernel image")

    parts = {"first": broken, "second": lambda bench: {"value": 3}, "third": lambda bench: {"value": 5}}
    monkeypatch.setattr(gpu_day, "sections", lambda: parts)
    assert gpu_day.main(["--only", "first,second", "--out", str(tmp_path / "day.json")]) == 1
    result = json.loads((tmp_path / "day.json").read_text())
    assert result["first"]["error"] == "RuntimeError: no kernel image"
    assert result["second"] == {"value": 3}
    assert "third" not in result
    assert result["failures"] == ["first"]
    assert "failures: first" in capsys.readouterr().out
    assert gpu_day.main(["--only", "third", "--limit", "0", "--out", str(tmp_path / "day.json")]) == 0
