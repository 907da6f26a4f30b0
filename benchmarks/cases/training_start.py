"""What a training costs before its first step: processor time of fresh processes, beside importing torch."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from statistics import median
from typing import Any

from benchmarks.registry import Options, case

STEP = ("quickstart/dim_digits", "train.steps=1", "report=[]", "preview=null")
STARTS = {
    "import torch": ("-c", "import torch"),
    "import what trains": ("-c", "import genzoo.api.training.train, genzoo.training.trainer"),
    "train for one step": ("-m", "genzoo", "train", *STEP),
}


@case("training_start")
def training_start(options: Options) -> list[dict[str, Any]]:
    """CPU seconds of importing torch, of importing what trains, and of a training of one step to its end."""
    with tempfile.TemporaryDirectory() as folder:
        for arguments in STARTS.values():  # modules are compiled once, as an installation does
            _cpu_seconds(arguments, folder)
        rounds = [
            {name: _cpu_seconds(arguments, folder) for name, arguments in STARTS.items()}
            for _ in range(options.repeats)
        ]
    return [
        {
            "name": name,
            "cpu_s": median(one[name] for one in rounds),
            "spread": [min(one[name] for one in rounds), max(one[name] for one in rounds)],
            "times_import_torch": median(one[name] / one["import torch"] for one in rounds),
            "load": os.getloadavg()[0],
        }
        for name in STARTS
    ]


def _cpu_seconds(arguments: tuple[str, ...], folder: str) -> float:
    """Of a fresh process in an empty place of its own, whose compiled modules are kept in `folder`."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    with tempfile.TemporaryDirectory() as place:
        before = os.times()
        subprocess.run(
            [sys.executable, *arguments], cwd=place, env=environment, check=True, capture_output=True
        )
        after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system
