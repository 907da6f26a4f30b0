"""What the start of eight processes on one machine costs beside that of one, with ImageNet's files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.cases.scale_input import EACH, fill, hexadecimal
from benchmarks.registry import Options, case

LIMIT = 400.0  # seconds for a group


@case("start_of_ranks")
def start_of_ranks(options: Options) -> list[dict[str, Any]]:
    """CPU seconds and memory of each of `ranks` (8) processes until the first step, beside one alone.

    The least of the repeats. Settings: ranks, folders (1,000 of 200 empty files each).
    """
    ranks, folders = (int(options.settings.get(k, v)) for k, v in (("ranks", 8), ("folders", 1000)))
    with tempfile.TemporaryDirectory() as root:
        fill(Path(root), folders, hexadecimal)
        started(Path(root), 1)  # the disk's cache is warm for all that follow
        rounds = [{size: started(Path(root), size) for size in (1, ranks)} for _ in range(options.repeats)]
    alone, first = (min(one[size][0]["cpu_seconds"] for one in rounds) for size in (1, ranks))
    others = min(max(rank["cpu_seconds"] for rank in one[ranks][1:]) for one in rounds)
    memory = {size: max(rank["megabytes"] for rank in rounds[-1][size]) for size in (1, ranks)}
    wall = {size: min(one[size][0]["wall_seconds"] for one in rounds) for size in (1, ranks)}
    return [
        {
            "name": f"{ranks} processes, {folders * EACH:,} files",
            "one_cpu_s": alone,
            "first_cpu_s": first,
            "others_cpu_s": others,
            "ratio": first / alone,
            "target": 1.5,
            "one_mb": memory[1],
            "largest_mb": memory[ranks],
            "one_wall_s": wall[1],
            "wall_s": wall[ranks],
        }
    ]


def started(root: Path, size: int) -> list[dict[str, float]]:
    """What each process took, in the order of their ranks, and the seconds until the last was there."""
    with tempfile.TemporaryDirectory() as results:
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(size),
        ]
        command += ["-m", "benchmarks.rank_start", str(root), results]
        quiet = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        began = time.perf_counter()
        subprocess.run(command, check=True, timeout=LIMIT, env=quiet, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - began
        found = [json.loads(Path(results, f"{rank}.json").read_text()) for rank in range(size)]
    return [one | {"wall_seconds": wall} for one in found]
