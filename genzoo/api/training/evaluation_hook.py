"""Evaluation during training: every so many steps, with the averaged weights; the best checkpoint is kept."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from genzoo.api.recipes.sections import BLOCK_SIZE, Evaluation
from genzoo.api.sampling.plan import make_plan, sample_all
from genzoo.core.contracts import pictures_of
from genzoo.core.errors import GenzooError, RecipeError, UsageError
from genzoo.core.files import write_folder, write_json
from genzoo.data.picture_sets import ArrayPictures, DatasetPictures
from genzoo.data.readable import readable
from genzoo.evaluation.evaluate_images import Settings, evaluate
from genzoo.evaluation.features import FeatureNetwork, build_network
from genzoo.evaluation.protocols import load_protocol
from genzoo.pictures.pixels import to_uint8
from genzoo.training.hook import Hook, StepRecord, TrainingView

if TYPE_CHECKING:
    from genzoo.evaluation.result import EvaluationResult

logger = logging.getLogger(__name__)


class EvaluationHook(Hook):
    """Judges the model in the run's own folder: evaluation/step_*.json, metrics.jsonl, TensorBoard, the log.

    An evaluation that an interruption left out is made up for at the next start.
    """

    def __init__(self, evaluation: Evaluation, *, block_size: int = BLOCK_SIZE) -> None:
        self.evaluation, self.block_size = evaluation, block_size
        self._network: FeatureNetwork | None = None
        self._reference: DatasetPictures | None = None

    def on_start(self, trainer: TrainingView) -> None:
        every, saved = self.evaluation.every, trainer.config.checkpoint_every
        if self.evaluation.keep_best and every % saved:
            raise RecipeError(
                f"evaluation.every is {every}: keeping the best checkpoint needs a multiple of "
                f"train.checkpoint_every, {saved}"
            )
        # now, so that missing weights stop the run before its first step
        self._network = trainer.world.together(
            lambda: build_network(
                load_protocol(self.evaluation.protocol).network,
                weights=self.evaluation.weights,
                device=str(trainer.device),
            )
        )
        # now, too: more unreadable items than may be are no news for the first evaluation
        self._reference = trainer.world.together(
            lambda: DatasetPictures(readable(pictures_of(trainer.dataset), trainer.config.max_bad))
        )
        if trainer.step and self._is_due(trainer, trainer.step):
            self._judge(trainer, trainer.step)

    def on_step(self, trainer: TrainingView, record: StepRecord) -> None:
        if self._is_due(trainer, record.step):
            self._judge(trainer, record.step)

    def _is_due(self, trainer: TrainingView, step: int) -> bool:
        wanted = step % self.evaluation.every == 0 or step == trainer.config.steps
        # one process decides: another machine may not see this folder yet
        return wanted and trainer.world.on_first(lambda: not result_file(trainer.folder.path, step).exists())

    def _judge(self, trainer: TrainingView, step: int) -> None:
        with trainer.averaged_model():
            pixels = self._sample(trainer)
        if trainer.stop_requested:  # made up for at the next start
            return
        result = self._result(trainer, pixels, step)
        trainer.world.on_first(lambda: self._record(trainer, result, step))

    def _record(self, trainer: TrainingView, result: EvaluationResult, step: int) -> None:
        result.save(result_file(trainer.folder.path, step))
        values = {name: value for name, value in result.metrics.items() if not name.endswith("_std")}
        for recorder in trainer.recorders:
            recorder.on_values(trainer, "evaluation", values)
        if self.evaluation.keep_best:
            keep_best(trainer.folder.path, trainer.saved, step, self.evaluation, result.metrics)

    def _sample(self, trainer: TrainingView) -> torch.Tensor:
        chosen = self.evaluation
        plan = make_plan(
            trainer.task,
            num=chosen.num or load_protocol(chosen.protocol).num,
            seed=chosen.seed,
            block_size=self.block_size,
            options={"steps": chosen.steps, "guidance_scale": chosen.guidance_scale},
        )
        parts = []
        for _, part in sample_all(trainer.task, plan, trainer.world):
            parts.append(to_uint8(part))
            if trainer.stop_requested:
                break
        return torch.cat(parts)

    def _result(self, trainer: TrainingView, pixels: torch.Tensor, step: int) -> EvaluationResult:
        chosen, reference = self.evaluation, self._reference
        assert reference is not None  # made at the start
        sampling = {"weights": "raw" if trainer.average is None else "ema", "seed": chosen.seed, "step": step}
        given = {"steps": chosen.steps, "guidance_scale": chosen.guidance_scale}
        return evaluate(
            ArrayPictures(pixels.movedim(1, -1).contiguous().numpy(), f"samples of step {step}"),
            protocol=chosen.protocol,
            reference=reference,
            num=chosen.num,
            network=self._network,
            sampling={**sampling, **{key: value for key, value in given.items() if value is not None}},
            reference_name="training data",
            settings=Settings(str(trainer.device), chosen.batch_size, world=trainer.world),
        )


def result_file(folder: Path, step: int) -> Path:
    """Where the result of a step is kept."""
    return folder / "evaluation" / f"step_{step:08d}.json"


def keep_best(
    folder: Path, checkpoint: Path | None, step: int, chosen: Evaluation, metrics: Mapping[str, float]
) -> bool:
    """Copy the checkpoint to best/ when its metric is the best so far; returns whether it was.

    best/best.json says which; files are linked, not copied, where the file system allows it.
    """
    name = str(chosen.keep_best)
    if name not in metrics:
        raise UsageError(
            f"evaluation.keep_best: there is no metric {name!r}", why=f"measured: {', '.join(metrics)}"
        )
    about, value = folder / "best" / "best.json", metrics[name]
    known = json.loads(about.read_text()) if about.is_file() else None
    sign = 1 if chosen.lower_is_better() else -1
    if known is not None and known["metric"] == name and sign * known["value"] <= sign * value:
        return False
    if checkpoint is None or not checkpoint.name.endswith(f"{step:08d}"):
        raise GenzooError(f"step {step} was judged but has no checkpoint to keep")
    target, source = folder / "best" / checkpoint.name, checkpoint
    write_folder(
        target,
        lambda part: shutil.copytree(source, part, copy_function=_link_or_copy, dirs_exist_ok=True),
        existing="replace",
    )
    write_json(about, {"metric": name, "value": value, "step": step, "checkpoint": target.name})
    for old in folder.joinpath("best").glob("step_*"):
        if old != target:
            shutil.rmtree(old)
    logger.info("best so far: %s %.4g at step %d, kept in %s", name, value, step, target)
    return True


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
