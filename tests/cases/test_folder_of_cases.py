"""A folder of users' cases, `NAME/run.sh` each, given by GENZOO_CASES: every one of them is run.

A case prints commands and their exit statuses as "[exit N]". Whatever a user did, no command ends in a
traceback, blames genzoo, or exits with a status that is not documented; a file `NAME/exits`, if there is
one, holds the statuses that the commands have to have, in order. Without the variable a small folder of
this kind is run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCUMENTED = {0, 2, 3, 4, 5, 6, 129, 130, 143}
GIVEN = os.environ.get("GENZOO_CASES")
SECONDS = float(os.environ.get("GENZOO_CASES_SECONDS", "600"))
REPOSITORY = Path(__file__).resolve().parents[2]
# a case's own script may look into genzoo where it no longer stands; only genzoo's commands are judged
OURS = re.compile(r"(?m)^Traceback.*\n(?:[ \t].*\n)*?  File \".*/genzoo/cli\.py\"")

CASE = """
gz() { "$GENZOO" "$@" 2>&1; echo "[exit $?]"; }
cd "$W"
gz list samplers
gz sample nowhere --num 1
gz validate quickstart/dim_digits train.stepz=3
"""


def cases() -> list[Path]:
    return sorted(path.parent for path in Path(GIVEN).glob("*/run.sh")) if GIVEN else []


def run_case(case: Path, work: Path, seconds: float = SECONDS) -> str:
    """What a case prints."""
    launcher = work / "bin" / "genzoo"
    launcher.parent.mkdir(parents=True)
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m genzoo "$@"\n')
    launcher.chmod(0o755)
    places = {"W": str(work), "REPO": str(REPOSITORY), "GENZOO": str(launcher)}
    path = os.pathsep.join([str(launcher.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    modules = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    around = os.environ | places | {"PATH": path, "PYTHONPATH": modules, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", str(case / "run.sh")], cwd=work, env=around, capture_output=True, text=True, timeout=seconds,
        errors="replace", check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.stdout + done.stderr


def problems(case: Path, text: str) -> list[str]:
    """What is wrong with what a case printed."""
    statuses = [int(status) for status in re.findall(r"\[exit (\d+)\]", text)]
    found = [f"exit status {status}" for status in statuses if status not in DOCUMENTED]
    found += ["it says that this is a bug"] if "this is a bug" in text else []
    found += ["it ends in a traceback"] if OURS.search(text) else []
    if (case / "exits").is_file():
        wanted = [int(status) for status in (case / "exits").read_text().split()]
        found += [f"exit statuses {statuses}, not {wanted}"] if statuses != wanted else []
    return found


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.skipif(not GIVEN, reason="GENZOO_CASES names no folder")
@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_a_case_ends_well(case: Path, tmp_path: Path) -> None:
    text = run_case(case, tmp_path / "work")
    assert not problems(case, text), text[-4000:]


@pytest.mark.timeout(300)
def test_a_case_is_run_and_its_statuses_are_compared(tmp_path: Path) -> None:
    case = tmp_path / "case"
    case.mkdir()
    (case / "run.sh").write_text(CASE)
    (case / "exits").write_text("0 2 2\n")
    text = run_case(case, tmp_path / "work", 240)
    assert "dpm_solver_pp" in text
    assert problems(case, text) == []
    (case / "exits").write_text("0 2 4\n")
    assert problems(case, text) == ["exit statuses [0, 2, 2], not [0, 2, 4]"]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("error: KeyError: 'a'\n  fix:   --debug shows where; this is a bug\n[exit 1]\n", 2),
        ('Traceback (most recent call last):\n  File "/x/genzoo/cli.py", line 3, in main\n[exit 0]\n', 1),
        ('Traceback (most recent call last):\n  File "<string>", line 1, in <module>\n[exit 0]\n', 0),
        ("[exit 137]\n", 1),
        ("[exit 143]\n[exit 5]\n", 0),
    ],
)
def test_what_no_command_may_say(tmp_path: Path, text: str, wrong: int) -> None:
    assert len(problems(tmp_path, text)) == wrong
