"""`genzoo sweep`: one training for each combination of settings, each an ordinary run of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import sleep

from genzoo.api.recipes.plan import check_recipe
from genzoo.api.training.sweep_grid import Trial, trials
from genzoo.core.errors import UsageError
from genzoo.core.files import open_log, write_json
from genzoo.core.reading import read_record
from genzoo.core.recipe import Recipe, load_recipe
from genzoo.core.run_folder import RunFolder
from genzoo.core.signatures import AUTO
from genzoo.training.recipe_changes import changes

LOG = "sweep.log"
COST = "sweep_cost.json"
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Planned:
    """A trial with its recipe and where it goes."""

    trial: Trial
    recipe: Recipe
    folder: Path

    def is_finished(self) -> bool:
        """Whether the folder holds this very training, to its end."""
        known = RunFolder(self.folder)
        if known.status().get("state") != "finished":
            return False
        found = changes(load_recipe(self.folder / "recipe.yaml"), self.recipe)
        return all(change.new == AUTO for change in found)  # the run says what `auto` came to


def plan_sweep(recipe: str, overrides: Sequence[str], folder: Path) -> list[Planned]:
    """Every combination, its recipe read and checked. Raises what that raises, before anything runs."""
    found = [
        Planned(trial, load_recipe(recipe, trial.overrides), folder / trial.folder)
        for trial in trials(overrides)
    ]
    for one in found:
        check_recipe(one.recipe)
    names = [one.folder.name for one in found]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"two combinations would share the folder {twice}", fix="use shorter values")
    return found


def is_trial(folder: Path) -> bool:
    """Whether a sweep or a study has begun a run there."""
    return (folder / LOG).is_file()


def run_sweep(
    recipe: str,
    planned: Sequence[Planned],
    *,
    jobs: int = 1,
    words: Sequence[str] = (),
    told: Callable[[Planned, int], None] = lambda one, code: None,
) -> dict[str, int]:
    """Train what is not finished, `jobs` at a time, and return the exit code of each by its folder's name.

    Each is `genzoo train RECIPE ... --output FOLDER` in a process of its own, whose words go to sweep.log in
    the folder; the same sweep again continues what was interrupted.
    words: put before `train`, such as --import.   told: called with each as it ends.
    An interrupt is passed on, so that every running one saves first.
    """
    waiting = [one for one in planned if not one.is_finished()]
    codes = {one.folder.name: 0 for one in planned if one not in waiting}
    running: dict[subprocess.Popen[bytes], Planned] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                one = waiting.pop(0)
                running[_start(recipe, one, jobs, words)] = one
            for process, seconds in _ended(running):
                one = running.pop(process)
                _add_cost(one.folder, seconds)
                codes[one.folder.name] = process.returncode
                told(one, process.returncode)
            sleep(POLL_SECONDS)
    finally:
        _stop(running)
    return codes


def _start(recipe: str, one: Planned, jobs: int, words: Sequence[str]) -> subprocess.Popen[bytes]:
    one.folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "genzoo", *words, "train", recipe, *one.trial.overrides]
    env = dict(os.environ)
    env.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    with open_log(one.folder / LOG) as log:
        return subprocess.Popen(
            [*command, "--output", str(one.folder)], stdout=log, stderr=subprocess.STDOUT, env=env
        )


def _ended(running: Iterable[subprocess.Popen[bytes]]) -> list[tuple[subprocess.Popen[bytes], float]]:
    """The processes that have ended, each with the seconds of processor that it and its own children took."""
    found = []
    for process in running:
        before = _seconds_of_children()
        if process.poll() is not None:  # its time is added to that of our children in this very call
            found.append((process, _seconds_of_children() - before))
    return found


def _seconds_of_children() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _add_cost(folder: Path, seconds: float) -> None:
    """Add to what earlier processes of the same run took. A folder without a run is left to the next try."""
    if RunFolder(folder).has_run():
        write_json(folder / COST, {"processor_seconds": round(processor_seconds(folder) + seconds, 2)})


def processor_seconds(folder: Path) -> float:
    """What the trainings of a folder took, start and report included; 0 where it is not known."""
    return float(read_record(folder / COST).get("processor_seconds", 0))


def _stop(running: dict[subprocess.Popen[bytes], Planned]) -> None:
    """Let every process save and end."""
    for process in running:
        process.send_signal(signal.SIGTERM)
    for process in running:
        process.wait()
