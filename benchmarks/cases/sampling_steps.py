"""What sampling steps are worth: digits of the DDPM path and of the linear path at 5 to 100 steps.

Both models are trained to their end by the recipes of time_to_quality (`paper` and `all`); both are sampled
by DPM-Solver++ of second order in its SDE form, at the same guidance. Accuracy by votes and diversity are a
trade that guidance decides, so the energy distance of each class stands beside them.

    python -m benchmarks.run sampling_steps folder=runs/time_to_quality seeds=0

Cells are kept in the folder of time_to_quality, whose runs are gone on with.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.cases.time_to_quality import recipe_of
from benchmarks.digit_quality import TrainingClock, judged, spread
from benchmarks.registry import Options, case
from genzoo.api.run import train

PATHS = {"ddpm": "paper", "linear": "all"}


@case("sampling_steps")
def sampling_steps(options: Options) -> list[dict[str, Any]]:
    """Digits at few and many sampling steps, DDPM and linear path; folder=, seeds=, steps=, guidance=."""
    settings = options.settings
    folder = Path(settings.get("folder", "runs/time_to_quality"))
    seeds = [int(seed) for seed in settings.get("seeds", "0,1,2").split(",")]
    counts = [int(count) for count in settings.get("steps", "5,10,25,100").split(",")]
    guidance, num = float(settings.get("guidance", 1.5)), int(settings.get("num", 1000))
    rows = []
    for steps in counts:
        for path, change in PATHS.items():
            found = [cell(folder / f"{change}_{seed}", change, seed, steps, guidance, num) for seed in seeds]
            kinds = {kind: spread([one[kind] for one in found]) for kind in found[0]}
            name = f"{path}, {steps} steps"
            rows.append({"name": name, "guidance": guidance, "samples": num, "seeds": seeds, **kinds})
    return rows


def cell(here: Path, change: str, seed: int, steps: int, guidance: float, num: int) -> dict[str, float]:
    """The numbers of one run at one number of steps; read where they were made before."""
    kept = here / "steps.json"
    known: dict[str, dict[str, float]] = json.loads(kept.read_text()) if kept.is_file() else {}
    key = f"{steps} steps, guidance {guidance}, {num} samples"
    if key not in known:
        run = train(recipe_of(change, seed), output=here / "run", hooks=[TrainingClock(here / "clock.json")])
        known[key] = judged(run, num, steps=steps, guidance_scale=guidance)
        kept.write_text(json.dumps(known, indent=1) + "\n")
        print(f"  {here.name}, {key}: {known[key]}", flush=True)
    return known[key]
