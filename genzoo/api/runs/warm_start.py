"""A recipe's `init_from:` section: begin the training with the weights of other runs or files."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from genzoo.api.recipes.named import known_recipe
from genzoo.api.recipes.plan import prediction_of
from genzoo.api.recipes.sections import InitFrom
from genzoo.api.runs.open_run import open_run
from genzoo.api.runs.stored import StoredRun
from genzoo.assets.shipped import is_shipped
from genzoo.core.errors import WeightsError
from genzoo.core.files import write_json
from genzoo.pretrained.hub_runs import is_hub_run
from genzoo.training.hook import Hook, TrainingView

if TYPE_CHECKING:
    from torch import Tensor, nn

    from genzoo.api.runs.opened_file import OpenedFile
    from genzoo.nn.warm_start import Fate

logger = logging.getLogger(__name__)

REPORT = "init_from.json"


def warm_start_model(
    model: nn.Module, section: InitFrom, *, prediction: str | None = None
) -> dict[str, list[Fate]]:
    """Copy every source into the model; the fate of each tensor, by source. Raises WeightsError.

    prediction: what the model is trained to predict, if that is a choice; runs must have learned the same.
    """
    from genzoo.nn.warm_start import warm_start

    fates = {}
    for path in section.paths:
        fates[path] = warm_start(model, _weights(path, section, prediction))
        copied = sum(fate.source is not None and fate.target is not None for fate in fates[path])
        fresh = sum(fate.source is None for fate in fates[path])
        logger.info("init_from %s: %d tensors copied, %d left as they were", path, copied, fresh)
    return fates


class WarmStartReport(Hook):
    """Writes init_from.json into the run's folder: the fate of every tensor of every source."""

    def __init__(self, fates: Mapping[str, Sequence[Fate]]) -> None:
        self.fates = fates

    def on_start(self, trainer: TrainingView) -> None:
        if trainer.is_main:
            rows = {path: [asdict(fate) for fate in fates] for path, fates in self.fates.items()}
            write_json(trainer.folder.path / REPORT, rows)


def _weights(path: str, section: InitFrom, prediction: str | None) -> Mapping[str, Tensor]:
    run = _run_at(path)
    if run is not None:
        _require_same_prediction(prediction_of(run.recipe), prediction, path)
        return _weights_of(run, section)
    from genzoo.core.registry import CONVERTERS
    from genzoo.pretrained.loading import load_foreign
    from genzoo.pretrained.recognise import recognise

    tree = load_foreign(path)
    conversion = CONVERTERS.get(recognise(tree, path))().to_genzoo(tree)
    weights: Mapping[str, Tensor] = conversion.weights
    return weights


def _run_at(path: str) -> StoredRun | OpenedFile | None:
    """The run at a place; None for weights that are no run, such as a released file."""
    from genzoo.core.exported import read_exported

    if is_shipped(path) or is_hub_run(path) or Path(path).is_dir():
        return open_run(path)
    exported = read_exported(Path(path))
    return None if exported is None or known_recipe(exported) is None else open_run(path)


def _weights_of(run: StoredRun | OpenedFile, section: InitFrom) -> Mapping[str, Tensor]:
    if isinstance(run, StoredRun):
        content = run.weights(section.checkpoint)
        return content.averaged() if section.weights == "ema" else content.weights
    run.checkpoint(section.checkpoint)  # a file holds one kind of weights, of one step
    return run.first_weights()


def _require_same_prediction(theirs: str, ours: str | None, path: str) -> None:
    if ours is not None and theirs != ours:
        raise WeightsError(
            f"a model that predicts {theirs} is no beginning for one that predicts {ours}",
            where=f"init_from {path}",
            why="every layer learned what the last one puts out",
            fix=f"set task.prediction={theirs}, or train the source with task.prediction={ours}",
        )
