"""Seconds of training until DiM draws digits well: the paper's recipe, each change to it, and all at once.

Every run learns from the same 1,438 digits and is looked at ten times on its way. Well means an accuracy of
0.99 and a diversity of 0.82 over 1,000 samples of the averaged weights; 200 decide first whether 1,000
are worth their time. A run ends when it is there, so that its rate has not always fallen to zero.

    python -m benchmarks.run time_to_quality folder=runs/time_to_quality changes=paper seeds=0

Cells, a change with a seed each, are kept in the folder: those that are done are not run again, those that
were stopped go on, and the report is about all that are there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.digit_quality import TrainingClock, judged, spread
from benchmarks.registry import Options, case
from genzoo.api.run import train
from genzoo.core.recipe import Recipe, load_recipe

ACCURACY, DIVERSITY, SAMPLES = 0.99, 0.82, 1000
NEAR, FEW = 0.03, 200  # how far from both a look at few samples may be for one at all of them
LOOKS = 10
SHARED = ["data=digits_train", "preview=null", "report=null", "train.keep_last=1"]
PAPER, NEW = "quickstart/dim_digits_paper", "quickstart/dim_digits"
ADAMW = ["optim.lr=1e-2", "optim.betas=[0.9, 0.95]"]
MUON = "{name: muon, lr: 1e-2, adamw_share: 0.5, betas: [0.9, 0.95], schedule: cosine, warmup_steps: 50}"
LINEAR = [
    "task={name: flow_matching, label_dropout: 0.1, loss: {name: velocity_mse}}",
    "sampler={name: flow_dpm_solver_pp, steps: 25, stochastic: true, guidance_scale: 1.5, block_size: 100}",
]
LOGIT_NORMAL = "task.times={name: logit_normal, mean: 0.0, std: 1.0}"


@dataclass(frozen=True)
class Change:
    """A recipe, what is different in it, and in words."""

    help: str
    recipe: str = PAPER
    settings: tuple[str, ...] = ()


CHANGES = {
    "paper": Change("DDPM, noise, AdamW 2e-3, 96 a batch, 2,300 steps"),
    "batch": Change("48 a batch", settings=("train.batch_size=48",)),
    "adamw": Change("AdamW 1e-2, second beta 0.95", settings=tuple(ADAMW)),
    "muon": Change("Muon 1e-2", settings=(f"optim={MUON}",)),
    "linear": Change("linear path, velocity", settings=tuple(LINEAR)),
    "times": Change("linear path, velocity, logit-normal times", settings=(*LINEAR, LOGIT_NORMAL)),
    "all": Change("all but Muon, 500 steps, 15 sampling steps, guidance 1.65", NEW),
    "all_muon": Change("all with Muon, 500 steps", NEW, (f"optim={MUON}",)),
}


@case("time_to_quality")
def time_to_quality(options: Options) -> list[dict[str, Any]]:
    """CPU seconds of training to accuracy 0.99, diversity 0.82 of digits; folder=, changes=, seeds=."""
    settings = options.settings
    folder = Path(settings.get("folder", "runs/time_to_quality"))
    seeds = [int(seed) for seed in settings.get("seeds", "0,1,2").split(",")]
    for seed in seeds:
        for name in settings.get("changes", ",".join(CHANGES)).split(","):
            run_cell(name, seed, folder)
    cells = [json.loads(path.read_text()) for path in sorted(folder.glob("*/cell.json"))]
    rows = [row(name, [cell for cell in cells if cell["change"] == name]) for name in CHANGES]
    return [row for row in rows if row["seeds"]]


def recipe_of(name: str, seed: int) -> Recipe:
    """The recipe of a change with a seed; it saves where it is looked at."""
    change = CHANGES[name]
    plain = load_recipe(change.recipe, [*SHARED, *change.settings, f"train.seed={seed}"])
    every = plain.data["train"]["steps"] // LOOKS
    return plain.replaced({"train.checkpoint_every": every}, "time_to_quality")


def run_cell(name: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train and look until it is good enough or at its end; what was done before is read."""
    recipe, here = recipe_of(name, seed), folder / f"{name}_{seed}"
    kept = here / "cell.json"
    cell: dict[str, Any] = {"change": name, "seed": seed, "looks": []}
    if kept.is_file():
        cell = json.loads(kept.read_text())
    clock = TrainingClock(here / "clock.json")
    for look in range(len(cell["looks"]) + 1, LOOKS + 1):
        if reached(cell["looks"]):
            break
        step = look * recipe.data["train"]["checkpoint_every"]
        run = train(recipe, output=here / "run", hooks=[clock], until=step)
        seen = {"step": step, **clock.at(step), **look_at(run)}
        cell["looks"].append(seen)
        kept.write_text(json.dumps(cell, indent=1) + "\n")
        print(f"  {name}, seed {seed}: {seen}", flush=True)
    return cell


def look_at(run: Any) -> dict[str, float]:
    """Numbers of few samples, or of all where these are near enough."""
    few = {"samples": FEW, **judged(run, FEW)}
    near = few["accuracy"] >= ACCURACY - NEAR and few["diversity"] >= DIVERSITY - NEAR
    return {"samples": SAMPLES, **judged(run, SAMPLES)} if near else few


def reached(looks: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The first look that is good enough."""

    def good(look: dict[str, Any]) -> bool:
        enough: bool = look["samples"] >= SAMPLES and look["accuracy"] >= ACCURACY
        return enough and look["diversity"] >= DIVERSITY

    return next(filter(good, looks), None)


def row(name: str, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians and ranges over the seeds that got there, how many did, and every look of every seed."""
    found = {cell["seed"]: reached(cell["looks"]) for cell in cells}
    there = [look for look in found.values() if look is not None]
    kinds = ("cpu_seconds", "wall_seconds", "step", "accuracy", "diversity", "energy")
    kinds += ("held_out_accuracy", "held_out_diversity", "held_out_energy")
    return {
        "name": name,
        "help": CHANGES[name].help,
        "seeds": sorted(found),
        "reached": len(there),
        **({kind: spread([look[kind] for look in there]) for kind in kinds} if there else {}),
        "looks": {cell["seed"]: [_short(look) for look in cell["looks"]] for cell in cells},
    }


def _short(look: dict[str, Any]) -> list[float]:
    """step, CPU seconds, accuracy, diversity, number of samples."""
    kinds = ("step", "cpu_seconds", "accuracy", "diversity", "samples")
    return [round(look[kind], 3) for kind in kinds]
