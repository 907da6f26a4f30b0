"""The training loop, top to bottom: build, resume, step, save. It knows tasks, and no family."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn

from genzoo.core.checkpoint import load_checkpoint, save_checkpoint, set_aside_after
from genzoo.core.errors import GenzooError, Interrupted
from genzoo.core.model_state import frozen_digest, trainable_parameters
from genzoo.core.run_folder import RunFolder
from genzoo.core.types import Batch, Dataset, LossOutput, Task
from genzoo.data.sample_stream import SampleStream, batches
from genzoo.training import devices
from genzoo.training.config import TrainConfig, plan_batch
from genzoo.training.diagnosis import explain_non_finite, memory_advice, non_finite_error
from genzoo.training.ema import ParameterAverage
from genzoo.training.hooks import Hook, MetricsHook, ProgressHook, StepRecord
from genzoo.training.micro_step import micro_loss
from genzoo.training.optim import build_optimizer, learning_rate, set_step
from genzoo.training.resume import find_start
from genzoo.training.signals import StopSignals, interrupted
from genzoo.training.state import Captured, capture, restore
from genzoo.training.summary import Summary, dry_run, summarise

logger = logging.getLogger(__name__)
MAX_SKIPPED = 20  # fp16: overflows in a row before the loss scale cannot be the reason


@dataclass(frozen=True)
class FitResult:
    """step: optimizer steps done.   checkpoint: the newest.   resumed_from: a step, or None."""

    folder: Path
    step: int
    checkpoint: Path | None
    resumed_from: int | None


class Trainer:
    """Optimise a task's model on a data set, and leave a run folder behind.

        config = TrainConfig(steps=2000, batch_size=128)
        trainer = Trainer(task, dataset, config, optim={"name": "adamw", "lr": 1e-3}, output="runs/mine",
                          hooks=[PreviewHook(draw, every=500)])
        print(trainer.dry_run())     # parameters, memory, batch formula, after one batch
        trainer.fit()                # the same call again continues where it stopped

    task: see `core.types.Task`; training starts from the weights its model has now.   dataset: map-style, see
    `core.types.Dataset`.   optim: a recipe's section.   recipe_text: kept as recipe.yaml. Under torchrun or
    `accelerate launch` every process builds the same Trainer.
    """

    def __init__(
        self,
        task: Task,
        dataset: Dataset,
        config: TrainConfig,
        *,
        optim: Mapping[str, Any],
        output: str | Path,
        hooks: Sequence[Hook] = (),
        recipe_text: str = "",
    ) -> None:
        self.task, self.dataset, self.config = task, dataset, config
        self.folder, self.recipe_text, self.hooks = RunFolder(output), recipe_text, tuple(hooks)
        self.accelerator = devices.build_accelerator(config)
        self.plan = plan_batch(config.batch_size, config.micro_batch_size, self.accelerator.num_processes)
        self.stream = SampleStream(dataset, seed=config.seed, max_bad=config.max_bad)
        self.dtype = torch.float64 if config.precision == "fp64" else None
        task.to(self.device, self.dtype)
        self.model = task.model.to(device=self.device, dtype=self.dtype)
        self.frozen = frozen_digest(self.model)
        self.optimization = build_optimizer(trainable_parameters(self.model), optim)
        self.learning_rate = learning_rate(self.optimization, config.steps)
        self.prepared, self.optimizer = self.accelerator.prepare(self.model, self.optimization.optimizer)
        self.model = self.accelerator.unwrap_model(self.prepared)
        self.parameters = trainable_parameters(self.model)
        self.average = ParameterAverage(self.parameters, config) if config.ema_decay is not None else None
        recorders = (MetricsHook(tensorboard=config.tensorboard), ProgressHook())
        self.recorders: tuple[Hook, ...] = recorders if self.is_main else ()
        self.step: int = 0
        self.saved: Path | None = None
        self.unreadable: list[str] = []
        self._skipped = 0

    @property
    def device(self) -> torch.device:
        device: torch.device = self.accelerator.device
        return device

    @property
    def is_main(self) -> bool:
        return bool(self.accelerator.is_main_process)

    @property
    def is_sharded(self) -> bool:
        return devices.is_sharded(self.accelerator)

    def fit(self, resume: str | Path = "auto") -> FitResult:
        """Train to `config.steps`.

        resume: "auto" continues this folder's run, "never" wants the folder empty, or a checkpoint's path.
        Raises Interrupted, after a checkpoint, when a signal asked to stop; NonFiniteError before an update
        that would spoil the weights; RunLockedError when another process writes here.
        """
        grace = 0.0 if self.accelerator.num_processes == 1 else 5.0
        with contextlib.ExitStack() as stack:
            stop = stack.enter_context(StopSignals(grace))
            devices.on_main(self.accelerator, lambda: stack.enter_context(self.folder.lock()))
            resumed_from = self._start(resume)
            if self.step >= self.config.steps:
                logger.info("this run is finished: %d of %d steps are done", self.step, self.config.steps)
            else:
                stack.enter_context(self._reported())
                self._train(stop)
        return FitResult(self.folder.path, self.step, self.saved, resumed_from)

    def dry_run(self) -> Summary:
        """Forward and backward of one batch, without an update or a file; what the run would need."""
        with memory_advice(self.plan), contextlib.closing(self._batches()) as steps:
            return dry_run(self, next(steps))

    @contextlib.contextmanager
    def averaged_model(self) -> Iterator[nn.Module]:
        """Within the block, the plain model in evaluation mode with its averaged weights."""
        training = self.model.training
        self.model.eval()
        try:
            with self.average.swapped_in() if self.average else contextlib.nullcontext():
                yield self.model
        finally:
            self.model.train(training)

    def _start(self, resume: str | Path) -> int | None:
        path = devices.on_main(self.accelerator, lambda: find_start(self.folder, resume))
        if path is None:
            return None
        self.step = restore(self, load_checkpoint(path))
        self.saved = path
        devices.on_main(self.accelerator, lambda: set_aside_after(self.folder.checkpoints, self.step))
        return self.step

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Hooks and status.json around the loop; the status tells how it ended."""
        devices.on_main(self.accelerator, self._describe)
        try:
            for hook in (*self.recorders, *self.hooks):
                hook.on_start(self)
            yield
        except BaseException as error:
            state = "interrupted" if isinstance(error, Interrupted) else "failed"
            reason = error.what if isinstance(error, GenzooError) else f"{type(error).__name__}: {error}"
            with contextlib.suppress(GenzooError):  # a full disk must not hide the first error
                self._set_status(state, reason=reason)
            raise
        else:
            self._set_status("finished")
        finally:
            for hook in (*self.recorders, *self.hooks):
                hook.on_end(self)

    def _describe(self) -> None:
        processes = self.accelerator.num_processes
        self.folder.describe(recipe_text=self.recipe_text, device=str(self.device), processes=processes)
        for line in summarise(self).lines():
            logger.info("%s", line)
        self._set_status("running")

    def _set_status(self, state: str, **details: Any) -> None:
        if self.is_main:
            details |= {"unreadable": self.unreadable} if self.unreadable else {}
            self.folder.set_status(state, step=self.step, steps=self.config.steps, **details)

    def _train(self, stop: StopSignals) -> None:
        self.prepared.train()
        with contextlib.closing(self._batches()) as steps, memory_advice(self.plan):
            while self.step < self.config.steps:
                started = time.perf_counter()
                micro_batches = next(steps)
                self._note_unreadable(micro_batches)
                record, signum = self._optimizer_step(micro_batches, stop, started)
                for hook in self.recorders:  # before saving: a resumed run would not log this step again
                    hook.on_step(self, record)
                finished = self.step == self.config.steps
                if signum or finished or self.step % self.config.checkpoint_every == 0:
                    self._save()
                if signum and not finished:
                    raise interrupted(signum, step=self.step, checkpoint=self.saved)
                for hook in self.hooks:
                    hook.on_step(self, record)

    def _batches(self) -> Generator[list[dict[str, Any]], None, None]:
        yield from batches(
            self.stream,
            batch_size=self.plan.batch_size,
            per_device=self.plan.per_device,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
            start_step=self.step,
            num_workers=self.config.num_workers,
            pin_memory=self.device.type == "cuda",
        )

    def _note_unreadable(self, micro_batches: Sequence[Batch]) -> None:
        for item in (item for batch in micro_batches for item in batch["bad"]):
            if item not in self.unreadable:
                self.unreadable.append(item)
                logger.warning("unreadable, replaced by the next item: %s", item)

    def _optimizer_step(
        self, micro_batches: Sequence[Batch], stop: StopSignals, started: float
    ) -> tuple[StepRecord, int | None]:
        rate = self.learning_rate(self.step)
        set_step(self.optimization, self.step, self.config.steps, rate)
        for parameter in self.parameters.values():
            parameter.grad = None
        outputs = self._backward(micro_batches)
        norm = devices.gradient_norm(self.accelerator, self.parameters.values())
        loss = torch.stack([output.loss.detach() for output in outputs]).mean()
        (mean_loss, grad_norm), signum = devices.agree(self.accelerator, [loss, norm], stop.received)
        self._require_finite(mean_loss, grad_norm, micro_batches)
        if self.config.clip_grad_norm is not None:
            devices.clip_gradients(self.parameters.values(), self.config.clip_grad_norm, norm)
        self._update()
        if self.average:
            self.average.update()
        self.step += 1
        logged = self.step % self.config.log_every == 0 or self.step in (1, self.config.steps)
        metrics = devices.mean_metrics(self.accelerator, outputs) if logged else {}
        seconds = time.perf_counter() - started
        record = StepRecord(
            self.step, mean_loss, grad_norm, rate, self.plan.batch_size, seconds, logged, metrics
        )
        return record, signum

    def _backward(self, micro_batches: Sequence[Batch]) -> list[LossOutput]:
        """Add up the gradients of the mean loss; processes exchange them with the last micro-batch only."""
        outputs = []
        for number, batch in enumerate(micro_batches, 1):
            last = number == len(micro_batches)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.prepared):
                output = self.micro_loss(self.prepared, batch)
                self.accelerator.backward(output.loss / len(micro_batches))
            outputs.append(output)
        return outputs

    def micro_loss(self, model: nn.Module, batch: Batch) -> LossOutput:
        """The loss of one micro-batch; repeatable."""
        return micro_loss(
            self.task, model, batch, seed=self.config.seed, device=self.device, dtype=self.dtype
        )

    def _update(self) -> None:
        # Accelerate's wrapper is needed for the loss scale only, and costs as much as a small model's update
        scaled = self.accelerator.scaler is not None
        (self.optimizer if scaled else self.optimization.optimizer).step()

    def _require_finite(self, loss: float, grad_norm: float, micro_batches: Sequence[Batch]) -> None:
        finite_loss, finite_norm = abs(loss) < float("inf"), abs(grad_norm) < float("inf")
        overflowed = finite_loss and not finite_norm and self.accelerator.scaler is not None
        self._skipped = self._skipped + 1 if overflowed else 0
        if (finite_loss and finite_norm) or (overflowed and self._skipped <= MAX_SKIPPED):
            return
        found = explain_non_finite(self.model, micro_batches, lambda b: self.micro_loss(self.model, b))
        raise non_finite_error(gather_object([found]), step=self.step + 1, loss=loss, grad_norm=grad_norm)

    def _save(self) -> None:
        content = capture(self) if self.is_main or self.is_sharded else None
        self.saved = devices.on_main(self.accelerator, lambda: self._commit(content))
        self._set_status("running")
        for hook in (*self.recorders, *self.hooks):
            hook.on_checkpoint(self, self.saved)

    def _commit(self, content: Captured | None) -> Path:
        assert content is not None  # the main process always captures
        return save_checkpoint(
            self.folder.checkpoints,
            self.step,
            weights=content.weights,
            ema=content.ema,
            optimizer=content.optimizer,
            state=content.state,
            keep_last=self.config.keep_last,
            keep_every=self.config.keep_every,
        )
