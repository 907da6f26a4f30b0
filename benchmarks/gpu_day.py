"""Everything about genzoo that only a GPU can show, in one call of at most eight minutes, as one JSON.

    python -m benchmarks.gpu_day --out gpu_day.json        on a CUDA GPU; --only correctness,scans for some
    python -m benchmarks.gpu_day --tiny                    anywhere: Triton's interpreter and tiny sizes

Correctness comes first. A case that fails is told as such, and the others run; a section for which there is
no time left says so. On a fresh machine Triton compiles for minutes: there --only, in two calls. What was
run: benchmarks/results/gpu_day_*.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Section = Callable[..., dict[str, Any]]
LEAST = 60.0  # seconds that a section may take


def main(arguments: list[str] | None = None) -> int:
    """Run the sections; the file is written after each. Returns 1 when a case failed."""
    options = parse(arguments)
    if options.tiny:  # read when the kernels are imported
        os.environ |= {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    from benchmarks.gpu_day_parts import Bench
    from benchmarks.measure import environment

    bench = Bench(tiny=options.tiny)
    result: dict[str, Any] = {"case": "gpu_day", **environment(), "tiny": bench.tiny}
    started = time.monotonic()
    for name, section in sections().items():
        if options.only and name not in options.only.split(","):
            continue
        if time.monotonic() - started > options.limit - LEAST:
            result[name] = "left out: no time"
            continue
        began = time.monotonic()
        with bench.noted(result, name):
            result[name] = section(bench)
        result["failures"] = bench.failures
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        options.out.write_text(json.dumps(result, indent=1, default=str) + "\n")
    print(f"wrote {options.out}; failures: {', '.join(bench.failures) or 'none'}")
    return int(bool(bench.failures))


def sections() -> dict[str, Section]:
    """In order of what would be missed most."""
    from benchmarks import gpu_day_kernels as kernels
    from benchmarks import gpu_day_models as models
    from benchmarks import gpu_day_whole as whole

    return {
        "ceilings": kernels.ceilings,
        "correctness": kernels.correctness,
        "agreement": whole.agreement,
        "resumed": whole.resumed,
        "scans": kernels.scans,
        "convolution": kernels.convolution,
        "models": models.models,
        "kernels_of_a_step": whole.kernels_of_a_step,
        "forms": whole.forms,
        "crossover": models.crossover,
        "next_scale": models.next_scale,
        "digits": models.digits,
    }


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_day", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, on the CPU and Triton's interpreter")
    parser.add_argument("--only", default="", help="names of sections, between commas")
    parser.add_argument("--out", type=Path, default=Path("gpu_day.json"))
    parser.add_argument("--limit", type=float, default=470.0, help="seconds in all")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
