"""Where something ran: versions, machine, and the source revision, for env.json."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

STARTED_IN = "started_in"
_PACKAGES = (
    "genzoo",
    "torch",
    "torchvision",
    "accelerate",
    "diffusers",
    "transformers",
    "safetensors",
    "numpy",
)


def environment(
    *, device: str = "cpu", processes: int = 1, threads: int = 1, compile: str | None = None
) -> dict[str, Any]:
    """Versions, machine, source revision, and where relative paths start, for env.json.

    threads: of each process.   compile: what compiled the model, None where nothing did.
    """
    return {
        STARTED_IN: os.getcwd(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cpus": os.cpu_count(),
        "device": device,
        "processes": processes,
        "threads": threads,
        "compile": compile,
        "packages": {name: _version(name) for name in _PACKAGES},
        "git": _git(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git() -> dict[str, Any] | None:
    """Commit and dirty flag of the checkout this package runs from, if it is one."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return None
    try:
        commit = _run_git(checkout, "rev-parse", "HEAD").strip()
        return {"commit": commit, "dirty": bool(_run_git(checkout, "status", "--porcelain", "-uno").strip())}
    except (OSError, subprocess.SubprocessError):
        return None


def _run_git(checkout: Path, *arguments: str) -> str:
    command = ["git", "-C", str(checkout), "--no-optional-locks", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
