"""The training loop, top to bottom: build, resume, step, save. It knows tasks, and no family."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn

from genzoo.core.checkpoint import set_aside_after, step_folder
from genzoo.core.checkpoint_memory import CheckpointMemory
from genzoo.core.contracts import able
from genzoo.core.contracts.tasks import SamplesRounded
from genzoo.core.errors import GenzooError, Interrupted, exit_code_of
from genzoo.core.recipe import Recipe
from genzoo.core.run_folder import RunFolder
from genzoo.core.stored_tensors import open_checkpoint
from genzoo.core.types import Batch, Dataset, LossOutput, Task
from genzoo.data.loader_workers import LoaderError
from genzoo.data.sample_stream import SampleStream, batches
from genzoo.nn.compiled import BACKEND
from genzoo.training import devices
from genzoo.training.config import TrainConfig
from genzoo.training.diagnosis import explain_non_finite, memory_advice, non_finite_error
from genzoo.training.dry_run import dry_run
from genzoo.training.hook import Hook, StepRecord
from genzoo.training.hooks import MetricsHook, PreviewHook, ProgressHook
from genzoo.training.micro_step import micro_loss
from genzoo.training.optim import learning_rate, set_step
from genzoo.training.parts import build_parts
from genzoo.training.profiles import PowerAverages, write_snapshot
from genzoo.training.record import RunRecord
from genzoo.training.resume import find_start
from genzoo.training.saving import Saver
from genzoo.training.sharding import exchange_gradients, gathered
from genzoo.training.signals import StopSignals, interrupted
from genzoo.training.state import capture, restore
from genzoo.training.summary import Summary, summarise
from genzoo.training.trackers import tracker_hooks

logger = logging.getLogger(__name__)
Running = tuple[Iterator[list[dict[str, Any]]], StopSignals, int | None]
ENDED = "stopped at the step that `until` names"
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
    `core.types.Dataset`.   only: indices of the items to train on, all when left out.   optim: a recipe's
    section.   recipe: kept as recipe.yaml, and compared with that of a run that goes on.   facts: about
    frozen helpers such as the codec, kept in checkpoints; a run goes on with the same ones only. Under
    torchrun or `accelerate launch` every process builds the same Trainer.
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
        recipe: Recipe | None = None,
        only: Sequence[int] | None = None,
        facts: Mapping[str, str] | None = None,
    ) -> None:
        self.parts = parts = build_parts(task, dataset, config, optim, only, facts)
        self.task, self.dataset, self.config, self.plan = task, dataset, config, parts.plan
        self.model, self.parameters, self.average = parts.model, parts.parameters, parts.average
        self.accelerator, self.device = parts.accelerator, parts.device
        self.is_main = bool(parts.accelerator.is_main_process)
        self.is_sharded = parts.sharded
        self.folder, self.hooks = RunFolder(output), tuple(hooks)
        self.record = RunRecord(self.folder, recipe, steps=config.steps)
        self.world = devices.world_of(parts.accelerator)
        self.saver = Saver(self.record, config, self.world, sharded=parts.sharded)
        self.stream = SampleStream(dataset, seed=config.seed, max_bad=config.max_bad, only=only)
        self.learning_rate = learning_rate(parts.optimization, config.steps)
        trackers = tracker_hooks(config.trackers, config.tracker_project, recipe)
        recorders = (MetricsHook(tensorboard=config.tensorboard), ProgressHook(), *trackers)
        self.recorders: Sequence[Hook] = recorders if self.is_main else ()
        self.step: int = 0
        self.saved: Path | None = None
        self._skipped = 0
        self._save_ended = False
        self._stop = StopSignals()

    @property
    def stop_requested(self) -> bool:
        """Whether a signal came that this process may follow by itself; several agree at each step."""
        return self.world.size == 1 and self._stop.received is not None

    def fit(self, resume: str | Path = "auto", *, until: int | None = None) -> FitResult:
        """Train to `config.steps`.

        resume: "auto" continues this folder's run, "never" wants the folder empty, or a checkpoint's path.
        until: stop earlier, with a checkpoint after this step; rates follow `config.steps` all the same.
        Raises Interrupted, after a checkpoint, when a signal asked to stop; NonFiniteError before an update
        that would spoil the weights; RunLockedError when another process writes here; UsageError when the
        recipe is not the one of the run in the folder and the difference may not be, or would do nothing.
        """
        self._last = self.config.steps if until is None else min(until, self.config.steps)
        with self._running(resume) as (batches, stop, resumed_from):
            while self.step < self._last:
                started = time.perf_counter()
                micro_batches = self._next(batches)
                rate = self._set_rate()
                outputs = self._backward(micro_batches)
                record, signum = self._update(outputs, micro_batches, rate, stop, started)
                self._record(record, signum)
        return FitResult(self.folder.path, self.step, self.saved, resumed_from)

    def dry_run(self, progress: Callable[[int, int], None] | None = None) -> Summary:
        """Forward and backward of one batch and a look at the data, without an update or a file.

        progress: called with (files looked at, files to look at).
        """
        around = devices.settings(self.config, self.device)
        with around, memory_advice(self.plan), contextlib.closing(self._batches()) as steps:
            drawn = max((hook.at_once for hook in self.hooks if isinstance(hook, PreviewHook)), default=0)
            return dry_run(self.parts, self.stream, self.folder.path, next(steps), progress, drawn=drawn)

    @contextlib.contextmanager
    def averaged_model(self) -> Iterator[nn.Module]:
        """Within the block, the plain model in evaluation mode with its averaged weights."""
        with self.average.swapped_in() if self.average else contextlib.nullcontext(), self.raw_model():
            yield self.model

    @contextlib.contextmanager
    def raw_model(self) -> Iterator[nn.Module]:
        """Within the block, the plain model in evaluation mode, whole in every process."""
        training = self.model.training
        self.model.eval()
        try:
            with self._whole():
                yield self.model
        finally:
            self.model.train(training)

    def _whole(self) -> contextlib.AbstractContextManager[None]:
        """Within the block, all weights are in this process, and of one type."""
        if self.is_sharded:
            return gathered(self.model)
        storage = self.parts.frozen_storage
        if storage is None or able(self.task, SamplesRounded) is not None:
            return contextlib.nullcontext()
        return storage.widened()

    @contextlib.contextmanager
    def _running(self, resume: str | Path) -> Iterator[Running]:
        """What stands around the loop: signals noted, the folder locked, the state restored, hooks told."""
        grace = 0.0 if self.accelerator.num_processes == 1 else 5.0
        with contextlib.ExitStack() as stack:
            stack.enter_context(devices.settings(self.config, self.device))
            self._stop = stop = stack.enter_context(StopSignals(grace, speaks=self.is_main))
            self.world.on_first(lambda: stack.enter_context(self.folder.lock()))
            stack.callback(self.saver.close)
            resumed_from = self._start(resume)
            if self.step >= self._last:
                logger.info("this run is finished: %d of %d steps are done", self.step, self._last)
                self._settle_status()
            if self.step < self._last or any(hook.is_behind(self) for hook in self.hooks):
                stack.enter_context(self._reported())
                self.parts.prepared.train()
            batches = stack.enter_context(contextlib.closing(self._batches()))
            stack.enter_context(memory_advice(self.plan))
            yield batches, stop, resumed_from

    def _settle_status(self) -> None:
        """A signal after the last step left "interrupted" behind, though no step is left."""
        is_told = self.is_main and self.step == self.config.steps
        if is_told and self.folder.status().get("state") == "interrupted":
            self._set_status("finished")

    def _start(self, resume: str | Path) -> int | None:
        memory = CheckpointMemory()  # what was verified to be chosen is not hashed again to be read
        path = self.world.on_first(lambda: self._find_start(resume, memory))
        if path is None:
            return None
        self.step = restore(self.parts, open_checkpoint(path, self.world, self.device, memory.verify))
        self.saved = path
        self.world.on_first(lambda: set_aside_after(self.folder.checkpoints, self.step))
        return self.step

    def _find_start(self, resume: str | Path, memory: CheckpointMemory) -> Path | None:
        path = find_start(self.folder, resume, memory.verify)
        if path is not None:
            self.record.compare(path, self.parts)
        return path

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Hooks and status.json around the loop; the status tells how it ended."""
        self.world.on_first(self._describe)
        try:
            with self.world.errors_shared():
                for hook in (*self.recorders, *self.hooks):
                    hook.on_start(self)
                self._end_if_stopped(agreed=False)
                yield
        except BaseException as error:
            state = "interrupted" if isinstance(error, Interrupted) else "failed"
            reason = error.what if isinstance(error, GenzooError) else f"{type(error).__name__}: {error}"
            with contextlib.suppress(GenzooError):  # a full disk must not hide the first error
                # torchrun makes every code 1
                self._set_status(state, reason=reason, exit_code=exit_code_of(error))
            raise
        else:
            done = self.step == self.config.steps
            self._set_status("finished" if done else "interrupted", **({} if done else {"reason": ENDED}))
        finally:
            for hook in (*self.recorders, *self.hooks):
                hook.on_end(self)

    def _describe(self) -> None:
        compiled_by = BACKEND if self.config.compile else None
        processes = self.accelerator.num_processes
        self.record.begin(self.step, device=str(self.device), processes=processes, compiled_by=compiled_by)
        summary = summarise(self.parts, self.folder.path)
        self.saver.require_room(summary.checkpoint_bytes)
        for line in summary.lines():
            logger.info("%s", line)

    def _set_status(self, state: str, **details: Any) -> None:
        if self.is_main:
            self.record.set_status(state, self.step, **details)

    def _batches(self) -> Generator[list[dict[str, Any]], None, None]:
        for micro_batches in batches(
            self.stream,
            batch_size=self.plan.batch_size,
            per_device=self.plan.per_device,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
            start_step=self.step,
            num_workers=self.config.num_workers,
            pin_memory=self.device.type == "cuda",
            loader_timeout=self.config.loader_timeout,
        ):
            self._note_unreadable(micro_batches)
            when = {"step": self.step, "steps": self.config.steps}
            yield [batch | when for batch in micro_batches]

    def _note_unreadable(self, micro_batches: Sequence[Batch]) -> None:
        for item in (item for batch in micro_batches for item in batch["bad"]):
            if item not in self.record.unreadable:
                self.record.unreadable.append(item)
                logger.warning("unreadable, replaced by the next item: %s", item)

    def _set_rate(self) -> float:
        """The learning rate of the step that comes, put into the optimizer; gradients are cleared."""
        rate = self.learning_rate(self.step)
        set_step(self.parts.optimization, self.step, self.config.steps, rate)
        for parameter in self.parameters.values():
            parameter.grad = None
        return rate

    def _backward(self, micro_batches: Sequence[Batch]) -> list[LossOutput]:
        """Add up the gradients of the mean loss; processes exchange them with the last micro-batch only."""
        outputs = []
        for number, batch in enumerate(micro_batches, 1):
            last = number == len(micro_batches)
            if self.is_sharded:
                exchange_gradients(self.parts.prepared, last)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.parts.prepared):
                output = micro_loss(self.parts, self.parts.prepared, batch)
                self.accelerator.backward(output.loss / len(micro_batches))
            outputs.append(output)
        return outputs

    def _update(
        self,
        outputs: Sequence[LossOutput],
        micro_batches: Sequence[Batch],
        rate: float,
        stop: StopSignals,
        started: float,
    ) -> tuple[StepRecord, int | None]:
        """Move the weights and their average by one step; what it was like, and a signal that came."""
        norm = devices.gradient_norm(self.accelerator, self.parameters.values())
        loss = torch.stack([output.loss.detach() for output in outputs]).mean()
        agreed = devices.agree(self.accelerator, [loss, norm], stop.received, noted=self.saver.has_ended)
        mean_loss, grad_norm = agreed.means
        self._save_ended = agreed.noted
        self._require_finite(mean_loss, grad_norm, micro_batches)
        if self.config.clip_grad_norm is not None and self.step >= self.config.clip_after:
            devices.clip_gradients(self.parameters.values(), self.config.clip_grad_norm, norm)
        # Accelerate's wrapper is needed for the loss scale only, and costs as much as a small model's update
        scaled = self.accelerator.scaler is not None
        (self.parts.optimizer if scaled else self.parts.optimization.optimizer).step()
        if self.average:
            self.average.update()
        self.step += 1
        if self.parts.profiles:
            self.parts.profiles.update(self.step)
        logged = self.step % self.config.log_every == 0 or self.step in (1, self.config.steps)
        metrics = devices.mean_metrics(self.accelerator, outputs) if logged else {}
        seconds = time.perf_counter() - started
        record = StepRecord(
            self.step, mean_loss, grad_norm, rate, self.plan.batch_size, seconds, logged, metrics
        )
        return record, agreed.signum

    def _record(self, record: StepRecord, signum: int | None) -> None:
        """Log a step, save when it is time, and tell the hooks, unless a signal ends the run here."""
        if self.is_main:
            self.folder.require_held()
        for hook in self.recorders:  # before saving: a resumed run would not log this step again
            hook.on_step(self, record)
        finished = self.step == self._last
        at_end = self.step == self.config.steps
        if self.parts.profiles and (at_end or self.step % self.config.snapshot_every == 0):
            self._snapshot(self.parts.profiles)
        if self._save_ended:
            self.wait_for_save()
        if signum or finished or self.step % self.config.checkpoint_every == 0:
            self._save(wait=bool(signum) or finished)
        if record.logged and self.is_main:
            self.record.beat(self.step)
        if signum and not finished:
            raise interrupted(signum, step=self.step, checkpoint=self.saved)
        for hook in self.hooks:
            hook.on_step(self, record)
            if self.stop_requested:
                break
        self._end_if_stopped(agreed=finished)

    def _end_if_stopped(self, *, agreed: bool) -> None:
        """Raise Interrupted for a signal that came while hooks worked.   agreed: all processes are here."""
        received = self.world.gather(self._stop.received) if agreed else [self._stop.received]
        signum = next((number for number in received if number is not None), None)
        if signum is not None and (agreed or self.stop_requested):
            self.wait_for_save()
            if self.step and (self.saved is None or self.saved.name != step_folder(self.step)):
                self._save(wait=True)
            raise interrupted(signum, step=self.step, checkpoint=self.saved)

    def _next(self, batches: Iterator[list[dict[str, Any]]]) -> list[dict[str, Any]]:
        try:
            # an error of one is raised by all, before any of them waits for the others' gradients
            return self.world.together(lambda: next(batches))
        except LoaderError:
            if self.step:  # between two steps all is sound
                self._save(wait=True)
            raise

    def _require_finite(self, loss: float, grad_norm: float, micro_batches: Sequence[Batch]) -> None:
        finite_loss, finite_norm = abs(loss) < float("inf"), abs(grad_norm) < float("inf")
        overflowed = finite_loss and not finite_norm and self.accelerator.scaler is not None
        self._skipped = self._skipped + 1 if overflowed else 0
        if (finite_loss and finite_norm) or (overflowed and self._skipped <= MAX_SKIPPED):
            return
        with self._whole():
            found = explain_non_finite(
                self.model,
                self.parameters,
                micro_batches,
                lambda batch: micro_loss(self.parts, self.model, batch),
            )
        raise non_finite_error(gather_object([found]), step=self.step + 1, loss=loss, grad_norm=grad_norm)

    def _snapshot(self, profiles: PowerAverages) -> None:
        """Store the averages to combine; a step that is done again after a resume writes the same file."""
        self.saver.by_holders(
            lambda world: write_snapshot(self.folder.path, self.step, profiles.tensors(), world)
        )

    def _save(self, *, wait: bool) -> None:
        """Save this step, after the save that is still in flight.   wait: until it is committed."""
        self.wait_for_save()
        self.saver.save(capture(self.parts, self.step), self.step)
        if wait or not self.saver.in_background:
            self.wait_for_save()

    def wait_for_save(self) -> None:
        """Wait until a checkpoint that is in flight is committed. All processes call it together."""
        self._save_ended = False
        path = self.saver.result()
        if path is not None:
            self.saved = path
            self._set_status("running")
            for hook in (*self.recorders, *self.hooks):
                hook.on_checkpoint(self, path)
