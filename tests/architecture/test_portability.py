"""Every module imports by its full name, also where the system lacks what only Linux has."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "genzoo").rglob("*.py")
    if path.name != "__main__.py"  # it runs the command line
    and (find_spec("gradio") or ROOT / "genzoo/app" not in path.parents)  # an extra's
)
HIDDEN = {
    "os": ["fork", "register_at_fork", "pwrite", "pread", "uname", "getuid", "sched_getaffinity", "mkfifo"],
    "signal": ["SIGUSR1", "SIGUSR2", "SIGHUP", "SIGKILL", "SIGALRM", "pause", "setitimer", "pthread_kill"],
}
ABSENT = ["fcntl", "resource", "termios", "pwd", "grp", "pty", "syslog"]


def third_party() -> list[str]:
    """What the package imports of others; they have their own ways where a name is missing."""
    found: set[str] = set()
    for path in (ROOT / "genzoo").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
    return sorted(name for name in found if not name.startswith("genzoo"))


SCRIPT = """
import contextlib, importlib, os, signal, sys
others, hidden, absent, modules = (eval(line) for line in sys.stdin)
for name in others:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
assert not [name for name in sys.modules if name.startswith("genzoo")]
for module, names in hidden.items():
    for name in names:
        if hasattr(sys.modules[module], name):
            delattr(sys.modules[module], name)
sys.modules.update(dict.fromkeys(absent))
failed = {}
for name in modules:
    try:
        importlib.import_module(name)
        # by its full name, which a function of the same name in the package above would hide
        top, *inner = name.split(".")
        found = sys.modules[top]
        for part in inner:
            found = getattr(found, part)
        assert found is sys.modules[name], "another object has this name"
    except BaseException as error:
        failed[name] = f"{type(error).__name__}: {error}"
print(failed)
"""


def test_every_module_imports_without_what_only_some_systems_have() -> None:
    given = "\n".join(map(repr, (third_party(), HIDDEN, ABSENT, MODULES)))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=given, capture_output=True, text=True, cwd=ROOT, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "{}"


def test_the_names_that_are_hidden_are_there_to_be_hidden() -> None:
    if sys.platform != "linux":
        pytest.skip("says something on Linux only")
    import signal

    assert all(hasattr(os, name) for name in HIDDEN["os"])
    assert all(hasattr(signal, name) for name in HIDDEN["signal"])
