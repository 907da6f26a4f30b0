"""Experiment trackers by name, through Accelerate: metrics, evaluations and previews of a run reach them.

Keys and addresses are the tracker's own: from its login or its environment variables (WANDB_API_KEY,
WANDB_MODE=offline, TRACKIO_DIR, MLFLOW_TRACKING_URI, ...). A recipe has no place for them, and a run folder
keeps none: trackers.json holds the tracker's name of the run, so that a resumed run goes on in it.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from genzoo.core.files import write_json
from genzoo.core.optional import require
from genzoo.core.reading import read_record
from genzoo.core.recipe_tree import flatten
from genzoo.training.hook import Hook, StepRecord, TrainingView

if TYPE_CHECKING:
    from genzoo.core.recipe import Recipe

logger = logging.getLogger(__name__)

IDS = "trackers.json"


def tracker_hooks(names: Sequence[str], project: str, recipe: Recipe | None) -> tuple[Hook, ...]:
    """A recorder for each name. Raises MissingDependencyError for one whose package is not there."""
    for name in names:
        require(name, extra="trackers")
    return tuple(TrackerHook(name, project, recipe) for name in names)


class TrackerHook(Hook):
    """One tracker: it gets what metrics.jsonl gets, and each preview as a picture.

    A tracker that cannot be begun ends the run before its first step. One that fails later, such as a
    service that went away, is left out from then on, with a warning: the training goes on.
    """

    def __init__(self, name: str, project: str, recipe: Recipe | None) -> None:
        self.name, self.project, self.recipe = name, project, recipe
        self.tracker: Any = None

    def on_start(self, trainer: TrainingView) -> None:
        place = trainer.folder.path
        known = read_record(place / IDS)
        title = place.name if self.recipe is None else self.recipe.name
        self.tracker, ours = _BEGIN[self.name](self.project, title, place, known.get(self.name))
        write_json(place / IDS, {**known, self.name: ours})
        if self.recipe is not None:
            settings = _plain(self.recipe)
            self._told(lambda tracker: tracker.store_init_configuration(settings))

    def on_step(self, trainer: TrainingView, record: StepRecord) -> None:
        if not record.logged:
            return
        values = {"loss": record.loss, "grad_norm": record.grad_norm, "learning_rate": record.learning_rate}
        values |= dict(record.metrics) | {"samples_per_second": record.samples / record.seconds}
        self._log("train", values, record.step)

    def on_values(self, trainer: TrainingView, group: str, values: Mapping[str, float]) -> None:
        self._log(group, values, trainer.step)

    def on_picture(self, trainer: TrainingView, path: Path) -> None:
        self._told(lambda tracker: _SHOW[self.name](tracker, path, trainer.step))

    def on_end(self, trainer: TrainingView) -> None:
        self._told(lambda tracker: tracker.finish())
        self.tracker = None

    def _log(self, group: str, values: Mapping[str, float], step: int) -> None:
        named = {f"{group}/{name}": float(value) for name, value in values.items()}
        self._told(lambda tracker: tracker.log(named, step=step))

    def _told(self, say: Callable[[Any], object]) -> None:
        """Say something to the tracker, or never again."""
        if self.tracker is None:
            return
        try:
            say(self.tracker)
        except Exception as error:  # whatever a service and its client may raise
            logger.warning("%s takes nothing more of this run: %s", self.name, error)
            self.tracker = None


def _begin_wandb(project: str, title: str, place: Path, known: str | None) -> tuple[Any, str]:
    ours = known or uuid4().hex[:12]
    tracker = _accelerates("WandBTracker")(project, name=title, id=ours, resume="allow", dir=str(place))
    tracker.start()
    return tracker, ours


def _begin_trackio(project: str, title: str, place: Path, known: str | None) -> tuple[Any, str]:
    ours = known or f"{title}-{uuid4().hex[:8]}"
    options = {"name": ours, "resume": "allow", "embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
    tracker = _accelerates("TrackioTracker")(project, **options)
    tracker.start()
    return tracker, ours


def _begin_mlflow(project: str, title: str, place: Path, known: str | None) -> tuple[Any, str]:
    tracker = _accelerates("MLflowTracker")(experiment_name=project, run_id=known, run_name=title)
    tracker.start()
    return tracker, str(tracker.active_run.info.run_id)


def _accelerates(name: str) -> Any:
    return getattr(importlib.import_module("accelerate.tracking"), name)


def _show_wandb(tracker: Any, path: Path, step: int) -> None:
    from PIL import Image

    with Image.open(path, formats=("PNG", "GIF")) as picture:
        tracker.log_images({"preview": [picture]}, step=step)


def _show_trackio(tracker: Any, path: Path, step: int) -> None:
    tracker.log({"preview": require("trackio", extra="trackers").Image(str(path))}, step=step)


def _show_mlflow(tracker: Any, path: Path, step: int) -> None:
    tracker.log_artifact(str(path), artifact_path=f"previews/step_{step:08d}")


_BEGIN: Mapping[str, Callable[[str, str, Path, str | None], tuple[Any, str]]] = {
    "wandb": _begin_wandb,
    "trackio": _begin_trackio,
    "mlflow": _begin_mlflow,
}
_SHOW: Mapping[str, Callable[[Any, Path, int], None]] = {
    "wandb": _show_wandb,
    "trackio": _show_trackio,
    "mlflow": _show_mlflow,
}


def _plain(recipe: Recipe) -> dict[str, Any]:
    """Settings by dotted key, as values that every tracker takes."""
    plain = (str, int, float, bool)
    return {key: value if isinstance(value, plain) else str(value) for key, value in flatten(recipe.data)}
