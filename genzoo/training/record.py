"""What a run says about itself in its folder: its recipes, its command, its machine, and how it goes."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from genzoo.core.checkpoint_manifest import read_json
from genzoo.core.environment import environment
from genzoo.core.errors import UsageError
from genzoo.core.files import write_file
from genzoo.core.reading import read_record
from genzoo.core.recipe import Recipe
from genzoo.core.recipe_history import Phase, phases_of, write_phases
from genzoo.core.run_folder import RunFolder
from genzoo.training.parts import Parts
from genzoo.training.recipe_changes import Change, changes, listed
from genzoo.training.resume import require_same_classes
from genzoo.training.state import facts, identity

logger = logging.getLogger(__name__)
HEARTBEAT = 2.0  # seconds, at least, between two writes of status.json that only tell the step
ANOTHER_RUN = "start another run (--output NEW; init_from.path=THIS_RUN begins it with these weights)"


class RunRecord:
    """The small files of one training. Only the process that holds the folder's lock writes them.

    recipe.yaml changes with the first checkpoint made under another recipe, and not before: a start that
    fails leaves the run as it was. Without a recipe nothing is compared.
    """

    def __init__(self, folder: RunFolder, recipe: Recipe | None, *, steps: int) -> None:
        self.folder, self.recipe, self.steps = folder, recipe, steps
        self.unreadable: list[str] = []
        self._phases: list[Phase] = []
        self._changes: list[Change] = []
        self._waiting = False
        self._told_at = 0.0

    def compare(self, start: Path, parts: Parts) -> None:
        """Look at what made the checkpoint to continue from, before anything is restored.

        Raises UsageError for a change that the middle of a run does not allow, and for one that would have
        no effect, because every step is done.
        """
        state = read_json(start, "state.json")
        step = int(state.get("step", 0))
        present = identity(parts, step)
        require_same_classes(state, present, where=str(start))
        self._phases = [] if self.recipe is None else phases_of(start.resolve().parent.parent, step)
        if self.recipe is None or not self._phases:
            return
        self._changes = changes(self._phases[-1].recipe, self.recipe)
        self._refuse_other_run(step, state, present | {"facts": facts(parts)})
        if step >= self.steps:
            self._refuse_without_effect(step)

    def _refuse_other_run(self, step: int, state: Mapping[str, Any], present: Mapping[str, Any]) -> None:
        codecs = [(known.get("facts") or {}).get("codec") for known in (state, present)]
        identified = {"data": state.get("dataset") == present["dataset"], "codec": codecs[0] == codecs[1]}
        refused = [
            one
            for one in self._changes
            if not (one.is_allowed and identified.get(one.key.partition(".")[0], True))
        ]
        if refused:
            raise UsageError(
                f"the run was made with other settings, which may not change after step {step}",
                where=str(self.folder.path),
                why=listed(refused),
                fix=f"set them back, or {ANOTHER_RUN}, or remove this one and begin anew (--resume never)",
            )

    def _refuse_without_effect(self, step: int) -> None:
        vain = [one for one in self._changes if not one.is_aside]
        if vain:
            raise UsageError(
                f"this run is finished, {step} steps are done, and was made with other settings",
                where=str(self.folder.path),
                why=listed(vain),
                fix=f"set them back, go on with more train.steps, or {ANOTHER_RUN}",
            )
        if self._changes:
            text = "this run is finished and keeps its recipe; these settings have no effect:\n         %s"
            logger.warning(text, listed(self._changes))

    def begin(self, step: int, *, device: str, processes: int, compiled_by: str | None = None) -> None:
        """Write what is known before the first step, and what changed.   compiled_by: such as inductor."""
        is_new = not step or not (self.folder.path / "recipe.yaml").is_file()
        text = self.recipe.to_yaml() if self.recipe is not None and is_new else ""
        self._waiting = bool(step) and self.recipe is not None
        if self._changes:
            logger.warning("changed from step %d on:\n         %s", step + 1, listed(self._changes))
        here: dict[str, Any] = {"device": device, "processes": processes, "threads": torch.get_num_threads()}
        here["compile"] = compiled_by
        if step:
            self._tell_of_other_machine(here)
        self.folder.describe(recipe_text=text, **here)
        self.set_status("running", step)
        if self.recipe is not None and (self._changes or not self._phases):
            self._phases = [*self._phases, Phase(step, self.recipe)]

    def _tell_of_other_machine(self, here: Mapping[str, Any]) -> None:
        """Sums in another order round otherwise: what goes on is as good, and not bit for bit the same."""
        before = read_record(self.folder.path / "env.json")
        now = environment(**here)
        told = [
            f"{name} {before[name]} -> {now[name]}"
            for name in ("threads", "processes", "device", "cpu", "compile")
            if before.get(name) not in (None, now[name])
        ]
        packages = [found.get("packages") for found in (before, now)]
        torches = [found.get("torch") if isinstance(found, Mapping) else None for found in packages]
        told += [f"torch {torches[0]} -> {torches[1]}"] if torches[0] not in (None, torches[1]) else []
        if told:
            text = "not bit for bit the run that it was, because sums round otherwise: %s"
            logger.warning(text, "; ".join(told))

    def before_save(self) -> None:
        """Keep the recipes of all steps that the checkpoint to be written will hold. Raises RunLostError."""
        self.folder.require_held()
        if self._waiting:
            write_phases(self.folder.path, self._phases)

    def after_save(self) -> None:
        """The checkpoint is there: its recipe is the run's."""
        if self._waiting and self.recipe is not None:
            self._waiting = False
            write_file(self.folder.path / "recipe.yaml", self.recipe.to_yaml())

    def set_status(self, state: str, step: int, **details: Any) -> None:
        """Replace status.json."""
        details |= {"unreadable": self.unreadable} if self.unreadable else {}
        self.folder.set_status(state, step=step, steps=self.steps, **details)
        self._told_at = time.monotonic()

    def beat(self, step: int) -> None:
        """Tell the step in status.json, unless that was done a moment ago."""
        if time.monotonic() - self._told_at >= HEARTBEAT:
            self.set_status("running", step)
