"""The gate's way to a browser: what a network does not give refuses nothing, what is broken does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "browser"
NOT_RUN = "THE TESTS IN THE BROWSER ARE NOT RUN"


def outcome(place: Path, apt_get: str, user: int = 0) -> tuple[int, str, list[str]]:
    """Exit code, words and calls of apt-get on a machine that has nothing but these programs."""
    calls = place / "calls"
    programs = {"id": f"echo {user}", "sleep": "", "apt-get": f'echo "$1" >> {calls}\n{apt_get}'}
    for name, text in programs.items():
        (place / name).write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        (place / name).chmod(0o755)
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run(
        [bash, str(SCRIPT)],
        env={"PATH": str(place)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, calls.read_text().split() if calls.exists() else []


def test_it_is_installed_where_packages_can_be_reached(tmp_path: Path) -> None:
    assert outcome(tmp_path, "exit 0") == (0, "", ["update", "install"])


def test_a_flaw_of_a_moment_is_tried_again(tmp_path: Path) -> None:
    once = f"[ -e {tmp_path}/failed-$1 ] && exit 0; : > {tmp_path}/failed-$1; exit 1"
    assert outcome(tmp_path, once) == (0, "", ["update", "update", "install", "install"])


def test_packages_out_of_reach_are_said_and_refuse_nothing(tmp_path: Path) -> None:
    code, said, _ = outcome(tmp_path, "exit 100")
    assert code == 0
    assert said.startswith(NOT_RUN)
    assert "cannot be reached" in said


def test_an_install_that_fails_beside_packages_in_reach_fails(tmp_path: Path) -> None:
    code, said, calls = outcome(tmp_path, "[ $1 = update ]")
    assert code == 1
    assert "although Debian's packages can be reached" in said
    assert calls == ["update", "install", "install"]


def test_who_may_not_install_is_told(tmp_path: Path) -> None:
    code, said, calls = outcome(tmp_path, "exit 0", user=1000)
    assert (code, calls) == (0, [])
    assert said.startswith(NOT_RUN)
