"""docs/adding_a_family.md, followed word by word from outside: the files, the installation, the commands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "adding_a_family.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE))
COMMANDS = re.findall(r"^```sh\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)[0].splitlines()


def run(line: str, cwd: Path, path: Path) -> str:
    """A command of the page; the packages go to a folder beside it, so that the environment stays clean."""
    program, *arguments = shlex.split(line)
    if program == "pip":
        # no index is asked: what the package needs is here
        options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(path)]
        program, arguments = sys.executable, ["-m", "pip", *arguments, *options]
    else:
        program, arguments = sys.executable, ["-m", program, *arguments]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [program, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_page_is_enough(tmp_path: Path) -> None:
    page, path = tmp_path / "page", tmp_path / "installed"
    assert set(FILES) >= {"pyproject.toml", "straight_zoo/__init__.py", "straight_zoo/task.py"}
    for name, text in FILES.items():
        (page / name).parent.mkdir(parents=True, exist_ok=True)
        (page / name).write_text(text, encoding="utf-8")
    said = {line: run(line, page, path) for line in COMMANDS}
    assert len(said) == 6
    assert "straight_transformer" in said[COMMANDS[1]]
    assert "straight_digits: ok" in said[COMMANDS[2]]
    samples = next((page / "runs/first_look/samples").glob("*/"))
    assert len(list(samples.glob("00000*.png"))) == 4


def test_the_code_of_the_page_stays_short() -> None:
    code = "\n".join(text for name, text in FILES.items() if name.endswith((".py", ".yaml")))
    assert len([line for line in code.splitlines() if line.strip()]) <= 180
