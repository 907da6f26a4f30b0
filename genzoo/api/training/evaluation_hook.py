"""Evaluation during training: every so many steps, with the averaged weights; the best checkpoint is kept.

It may take longer than `train.collective_timeout`: processes meet after every block of samples and every few
batches of features, and what was drawn is kept until the result is there.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from genzoo.api.recipes.sections import BLOCK_SIZE, Evaluation
from genzoo.api.sampling.averages import sampling_in_training
from genzoo.api.sampling.plan import SamplePlan, make_plan, sample_all
from genzoo.api.training.best import (
    best_is_told,
    is_best,
    keep_best,
    read_result,
    result_file,
    set_results_aside,
    tell_best,
)
from genzoo.api.training.evaluation_parts import EvaluationParts
from genzoo.core.checkpoint import step_folder
from genzoo.core.checkpoint_manifest import weights_digest
from genzoo.core.contracts.datasets import pictures_of
from genzoo.core.errors import RecipeError
from genzoo.core.run_folder import read_metrics
from genzoo.data.picture_sets import ArrayPictures, DatasetPictures
from genzoo.data.readable import readable
from genzoo.evaluation.counts import require_enough
from genzoo.evaluation.evaluate_images import Settings, evaluate
from genzoo.evaluation.features import FeatureNetwork, build_network
from genzoo.evaluation.judging import Notes, adjust
from genzoo.evaluation.protocols import load_protocol
from genzoo.pictures.pixels import to_uint8
from genzoo.training.hook import Hook, StepRecord, TrainingView

if TYPE_CHECKING:
    from genzoo.evaluation.result import EvaluationResult

logger = logging.getLogger(__name__)
GROUP = "evaluation"  # of its values in metrics.jsonl


class EvaluationHook(Hook):
    """Judges the model in the run's own folder: evaluation/step_*.json, metrics.jsonl, TensorBoard, the log.

    An evaluation that an interruption left out is made up for at the next start.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        *,
        block_size: int = BLOCK_SIZE,
        sampler: Mapping[str, Any] | None = None,
    ) -> None:
        """sampler: the recipe's section; samples that another one left unfinished are drawn anew."""
        self.evaluation, self.block_size, self.sampler = evaluation, block_size, dict(sampler or {})
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
        self._reference = trainer.world.together(partial(reference_of, trainer))
        self._require_enough(len(self._reference))
        trainer.world.on_first(lambda: set_results_aside(trainer.folder.path, trainer.step))
        if trainer.step and self._is_due(trainer, trainer.step):
            self._judge(trainer, trainer.step)
        elif trainer.step:
            trainer.world.on_first(lambda: self._complete(trainer, trainer.step))

    def _require_enough(self, reference: int) -> None:
        named = load_protocol(self.evaluation.protocol)
        used = adjust(named, num=self.evaluation.num, available=sys.maxsize, notes=Notes())
        require_enough(used, used.num, reference)

    def is_behind(self, trainer: TrainingView) -> bool:
        return bool(trainer.step) and trainer.world.on_first(lambda: self._is_incomplete(trainer))

    def on_step(self, trainer: TrainingView, record: StepRecord) -> None:
        if self._is_due(trainer, record.step):
            self._judge(trainer, record.step)

    def _is_wanted(self, trainer: TrainingView, step: int) -> bool:
        return step % self.evaluation.every == 0 or step == trainer.config.steps

    def _is_due(self, trainer: TrainingView, step: int) -> bool:
        # one process decides: another machine may not see this folder yet
        return self._is_wanted(trainer, step) and trainer.world.on_first(
            lambda: read_result(trainer.folder.path, step) is None
        )

    def _judge(self, trainer: TrainingView, step: int) -> None:
        trainer.wait_for_save()  # what is drawn is kept with the checkpoint of this step
        with trainer.averaged_model():
            pixels = self._sample(trainer, step)
        if pixels is None:  # made up for at the next start
            return
        result = self._result(trainer, pixels, step)
        trainer.world.on_first(lambda: self._record(trainer, result, step))

    def _record(self, trainer: TrainingView, result: EvaluationResult, step: int) -> None:
        result.save(result_file(trainer.folder.path, step))
        EvaluationParts(trainer.folder.path, step).end()
        self._tell(trainer, result)
        self._keep_best(trainer, result, step)

    def _complete(self, trainer: TrainingView, step: int) -> None:
        """Do what a kill just after a result left undone."""
        result = read_result(trainer.folder.path, step)
        if result is None:
            return
        EvaluationParts(trainer.folder.path, step).end()
        if not is_told(trainer.folder.metrics, step):
            self._tell(trainer, result)
        self._keep_best(trainer, result, step)

    def _is_incomplete(self, trainer: TrainingView) -> bool:
        """Whether this step has no result, or one that a kill left out of the log or of best/."""
        result = read_result(trainer.folder.path, trainer.step)
        if result is None:
            return self._is_wanted(trainer, trainer.step)
        best = self.evaluation.keep_best
        better = best in result.metrics and is_best(trainer.folder.path, self.evaluation, result.metrics)
        told = not best or best_is_told(trainer.folder.path, self.evaluation)
        return not is_told(trainer.folder.metrics, trainer.step) or better or not told

    def _tell(self, trainer: TrainingView, result: EvaluationResult) -> None:
        values = {name: value for name, value in result.metrics.items() if not name.endswith("_std")}
        for recorder in trainer.recorders:
            recorder.on_values(trainer, GROUP, values)

    def _keep_best(self, trainer: TrainingView, result: EvaluationResult, step: int) -> None:
        if self.evaluation.keep_best:
            keep_best(trainer.folder.path, trainer.saved, step, self.evaluation, result.metrics)
            tell_best(trainer.folder.path, self.evaluation)

    def _sample(self, trainer: TrainingView, step: int) -> torch.Tensor | None:
        """All samples as uint8, those of an earlier start among them; None when a signal came first."""
        chosen = self.evaluation
        plan = make_plan(
            trainer.task,
            num=chosen.num or load_protocol(chosen.protocol).num,
            seed=chosen.seed,
            block_size=self.block_size,
            options={"steps": chosen.steps, "guidance_scale": chosen.guidance_scale},
        )
        parts, world = EvaluationParts(trainer.folder.path, step), trainer.world
        kept = self._begin(trainer, parts, plan, step)
        found: dict[int, torch.Tensor] = {}
        for block in plan.blocks() if kept else ():
            done = world.on_first(partial(parts.read, block))
            found |= {} if done is None else {block.start: done}
        missing = [block for block in plan.blocks() if block.start not in found]
        for block, drawn in sample_all(trainer.task, plan, world, missing):
            pixels = found[block.start] = to_uint8(drawn)
            if kept:
                world.on_first(partial(parts.write, block, pixels))
            if trainer.stop_requested:
                return None
        return torch.cat([found[block.start] for block in plan.blocks()])

    def _begin(self, trainer: TrainingView, parts: EvaluationParts, plan: SamplePlan, step: int) -> bool:
        """Whether blocks are kept: weights that no checkpoint holds are never met again."""
        saved = trainer.saved
        if not trainer.world.on_first(lambda: saved is not None and saved.name == step_folder(step)):
            return False

        def begin() -> None:
            assert saved is not None
            weights = weights_digest(saved, "raw" if trainer.average is None else "ema")
            given = {name: getattr(plan, name) for name in ("num", "seed", "block_size", "options")}
            parts.begin({"weights": weights, "sampler": self.sampler, **given})

        trainer.world.on_first(begin)
        return True

    def _result(self, trainer: TrainingView, pixels: torch.Tensor, step: int) -> EvaluationResult:
        chosen = self.evaluation
        reference = self._reference or reference_of(trainer)
        made = sampling_in_training(trainer.task, trainer.config, averaged=trainer.average is not None)
        sampling = {**made, "seed": chosen.seed, "step": step}
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


def reference_of(trainer: TrainingView) -> DatasetPictures:
    """The pictures that are trained on; of cached latents or controls, the images behind them."""
    return DatasetPictures(readable(pictures_of(trainer.dataset), trainer.config.max_bad))


def is_told(metrics: Path, step: int) -> bool:
    """Whether metrics.jsonl holds an evaluation of a step."""
    rows = read_metrics(metrics) if metrics.is_file() else []
    told = (row for row in rows if any(name.startswith(f"{GROUP}/") for name in row))
    return step in {row["step"] for row in told}
