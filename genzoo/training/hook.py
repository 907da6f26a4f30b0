"""What a hook is, and what it may look at while a run goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import nn

    from genzoo.core.processes import World
    from genzoo.core.run_folder import RunFolder
    from genzoo.core.types import Dataset, Task
    from genzoo.training.config import TrainConfig
    from genzoo.training.ema import ParameterAverage


@dataclass(frozen=True)
class StepRecord:
    """One finished optimizer step.

    step: number of steps done.   samples: in this step, over all processes.   seconds: this step took.
    metrics: the task's own, filled on steps that are logged (`logged`), else empty.
    """

    step: int
    loss: float
    grad_norm: float
    learning_rate: float
    samples: int
    seconds: float
    logged: bool
    metrics: Mapping[str, float] = field(default_factory=dict)


class TrainingView(Protocol):
    """A run in progress, as its hooks see it; they look, and change nothing.

    step: optimizer steps done.   saved: the newest checkpoint of this run, None before the first.
    parameters: those that are optimised, by name.   average: of them, None where none is kept.
    world: the processes that train together.
    recorders: hooks that take measured values (`Hook.on_values`), in the main process only.
    stop_requested: whether long work, such as drawing pictures, should be given up for a signal.
    is_main: whether this process writes files.   is_sharded: whether it holds a part of the weights only.
    """

    task: Task
    dataset: Dataset
    config: TrainConfig
    folder: RunFolder
    model: nn.Module
    parameters: dict[str, nn.Parameter]
    average: ParameterAverage | None
    world: World
    recorders: Sequence[Hook]
    step: int
    saved: Path | None
    device: torch.device
    is_main: bool
    is_sharded: bool

    @property
    def stop_requested(self) -> bool: ...

    def wait_for_save(self) -> None:
        """Wait until a checkpoint that is written beside the steps is committed, and `saved` names it.

        All processes call it together.
        """

    def averaged_model(self) -> AbstractContextManager[nn.Module]:
        """Within the block, the plain model in evaluation mode with its averaged weights.

        Of a sharded model every process then holds the whole; all enter and leave the block together.
        """

    def raw_model(self) -> AbstractContextManager[nn.Module]:
        """The same with the weights as they are trained."""


class Hook(Protocol):
    """Called in every process; `trainer.is_main` tells the one that writes files. Subclass and override."""

    def on_start(self, trainer: TrainingView) -> None:
        """Before the first step, after a checkpoint was restored."""
        return

    def is_behind(self, trainer: TrainingView) -> bool:
        """Whether something of the step that was restored is left to do, though no step is left."""
        return False

    def on_step(self, trainer: TrainingView, record: StepRecord) -> None:
        """After an optimizer step."""
        return

    def on_checkpoint(self, trainer: TrainingView, path: Path) -> None:
        """After a checkpoint was committed; one written beside the steps is of a step before this."""
        return

    def on_values(self, trainer: TrainingView, group: str, values: Mapping[str, float]) -> None:
        """After another hook measured something at this step, such as an evaluation; for recorders.

        Names with a slash are details: files keep them, lines leave them out.
        """
        return

    def on_picture(self, trainer: TrainingView, path: Path) -> None:
        """After another hook drew a picture at this step, such as a preview; for recorders."""
        return

    def on_end(self, trainer: TrainingView) -> None:
        """When training ends, in whatever way."""
        return
