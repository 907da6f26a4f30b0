"""The hooks that come with the trainer: progress, metrics.jsonl, TensorBoard, previews."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from genzoo.core.progress import Progress
from genzoo.core.run_folder import MetricsLog
from genzoo.training.hook import Hook, StepRecord, TrainingView

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

logger = logging.getLogger(__name__)


class MetricsHook(Hook):
    """Logged steps to metrics.jsonl and, when asked, to TensorBoard; values are those of the step itself."""

    def __init__(self, *, tensorboard: bool) -> None:
        self.tensorboard = tensorboard
        self._log: MetricsLog | None = None
        self._board: Any = None

    def on_start(self, trainer: TrainingView) -> None:
        self._log = MetricsLog(trainer.folder.metrics, resumed_step=trainer.step)
        if self.tensorboard:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._board = SummaryWriter(str(trainer.folder.tensorboard), purge_step=trainer.step + 1)

    def on_step(self, trainer: TrainingView, record: StepRecord) -> None:
        if not record.logged or self._log is None:
            return
        values = {"loss": record.loss, "grad_norm": record.grad_norm, "learning_rate": record.learning_rate}
        values |= dict(record.metrics) | {"samples_per_second": record.samples / record.seconds}
        self._log.append({"step": record.step, "samples": record.step * record.samples} | values)
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"train/{name}", value, record.step)

    def on_values(self, trainer: TrainingView, group: str, values: Mapping[str, float]) -> None:
        if self._log is not None:
            named = {f"{group}/{name}": value for name, value in values.items()}
            self._log.append({"step": trainer.step} | named)
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{group}/{name}", value, trainer.step)

    def on_picture(self, trainer: TrainingView, path: Path) -> None:
        if self._board is not None:
            with Image.open(path, formats=("PNG", "GIF")) as picture:
                levels = np.asarray(picture.convert("RGB"))
            self._board.add_image("preview", levels, trainer.step, dataformats="HWC")

    def on_end(self, trainer: TrainingView) -> None:
        if self._log is not None:
            self._log.close()
        if self._board is not None:
            self._board.close()


class ProgressHook(Hook):
    """A bar with loss, samples/s and time left on a terminal; elsewhere a log line now and then."""

    def __init__(self, console: Console | None = None, *, line_seconds: float = 10.0) -> None:
        self.progress = Progress(console, line_seconds=line_seconds)
        self._seconds = self._samples = 0.0
        self._measured = ""

    def on_start(self, trainer: TrainingView) -> None:
        self.progress.__enter__()

    def on_step(self, trainer: TrainingView, record: StepRecord) -> None:
        self._seconds += record.seconds
        self._samples += record.samples
        if self.progress.is_due("step") or record.step == trainer.config.steps:
            text = f"loss {record.loss:.4f}  {self._samples / self._seconds:,.0f} samples/s{self._measured}"
            self.progress("step", record.step, trainer.config.steps, text)
            self._seconds, self._samples = 0.0, 0.0

    def on_values(self, trainer: TrainingView, group: str, values: Mapping[str, float]) -> None:
        text = "  ".join(f"{name} {value:.4g}" for name, value in values.items() if "/" not in name)
        self._measured = f"  {group}: {text}"  # stays on the line until the next measurement
        logger.info("step %d  %s: %s", trainer.step, group, text)

    def on_end(self, trainer: TrainingView) -> None:
        self.progress.__exit__()


class PreviewHook(Hook):
    """Call `function(trainer, step)` every so many steps, with the averaged weights in the model.

    All processes take part: the function shares its work over `trainer.world`, and the first one writes.
    at_once: how many samples it draws together, for a dry run; 0 where it draws none.
    """

    def __init__(
        self, function: Callable[[TrainingView, int], None], *, every: int, at_once: int = 0
    ) -> None:
        self.function, self.every = function, every
        self.at_once = at_once if every else 0

    def on_step(self, trainer: TrainingView, record: StepRecord) -> None:
        if self.every and record.step % self.every == 0:
            with trainer.averaged_model():
                self.function(trainer, record.step)
