"""Timing side by side, memory in a fresh process, and the facts that every result must carry."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

# of the processor where others use the machine, too; the same as the wall's where nobody does
CLOCKS: Mapping[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
PACKAGES = ("torch", "triton", "transformers", "mambapy", "mamba_ssm", "diffusers")


def interleave(
    functions: Mapping[str, Callable[[], object]], repeats: int, *, clock: str = "wall"
) -> dict[str, list[float]]:
    """Seconds of each call; the functions take turns, so that drift of the machine hits all of them alike.

    clock: one of CLOCKS.
    """
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            seconds[name].append(_time(function, CLOCKS[clock]))
    return seconds


def _time(function: Callable[[], object], clock: Callable[[], float]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = clock()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - start


def compare(ours: str, seconds: Mapping[str, list[float]]) -> dict[str, Any]:
    """Medians and spread in ms, and how many times slower each peer is than `ours`, round by round."""
    row: dict[str, Any] = {
        "ms": {name: _spread([1e3 * s for s in values]) for name, values in seconds.items()}
    }
    row["times_slower"] = {
        name: _spread([peer / own for peer, own in zip(values, seconds[ours], strict=True)])
        for name, values in seconds.items()
        if name != ours
    }
    ratios = [ratio["median"] for ratio in row["times_slower"].values()]
    row["best_peer_ratio"] = min(ratios) if ratios else None
    return row


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def peak_memory(setup: str, call: str) -> float:
    """Extra MB at the peak of `call`, in a fresh process that has run `setup`."""
    return apart(setup, call)["extra_mb"]


def apart(setup: str, call: str) -> dict[str, float]:
    """Extra MB at the peak of `call`, and its seconds, in a fresh process that has run `setup`."""
    code = f"""
import json, re, time
from pathlib import Path
def field(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
{setup}
Path("/proc/self/clear_refs").write_text("5")
before, wall, cpu = field("VmRSS"), time.perf_counter(), time.process_time()
{call}
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(json.dumps(dict(extra_mb=field("VmHWM") - before, seconds=wall, cpu_seconds=cpu)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def environment() -> dict[str, Any]:
    """Hardware, versions and commit of a result."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "hardware": hardware(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "commit": _commit(),
    }


def hardware() -> str:
    """The accelerator's name if there is one, else the processor's."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    here = Path(__file__).parent
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"
