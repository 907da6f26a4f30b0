"""Pictures during training: the same noise and conditions each time, drawn with the averaged weights."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch.nn.functional import pad

from genzoo.api.sampling.folder import write_grid
from genzoo.api.sampling.plan import BLOCK_SIZE, make_plan, sample_all
from genzoo.api.sampling.samples import to_uint8
from genzoo.core.contracts import DrawsAgain, able
from genzoo.core.errors import RecipeError
from genzoo.data.collate import collate

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from genzoo.core.types import Dataset, Task
    from genzoo.training.hook import TrainingView

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Preview:
    """A recipe's `preview:` section.

    every: optimizer steps between two previews; 0 draws none.   num: pictures.   columns: of the grid.
    class_labels: one for each picture; every class in turn when left out.   steps, guidance_scale: in place
    of the recipe's sampler section. A task that is steered by pictures gets those of `num` items, spread over
    the data set, and the grid shows each above its sample.
    """

    every: int = 1000
    num: int = 16
    seed: int = 0
    columns: int | None = None
    class_labels: Sequence[int] | None = None
    steps: int | None = None
    guidance_scale: float | None = None

    def __post_init__(self) -> None:
        problems = []
        if self.every < 0:
            problems.append(f"preview.every: must not be negative, not {self.every}")
        if self.num < 1:
            problems.append(f"preview.num: must be at least 1, not {self.num}")
        if self.class_labels is not None and len(self.class_labels) != self.num:
            problems.append(
                f"preview.class_labels: has {len(self.class_labels)} labels for {self.num} pictures"
            )
        if problems:
            raise RecipeError("\n".join(problems))

    def options(self) -> dict[str, Any]:
        """What to hand to the sampler."""
        return {"class_labels": self.class_labels, "steps": self.steps, "guidance_scale": self.guidance_scale}


def preview_function(preview: Preview, block_size: int | None) -> Callable[[TrainingView, int], None]:
    """What a PreviewHook calls: draw a grid into samples/step_*/ of the run's folder, of clips also a GIF."""

    def draw(trainer: TrainingView, step: int) -> None:
        from_data = options_from_data(trainer.task, trainer.dataset, preview.num)
        asked = {key: value for key, value in preview.options().items() if value is not None}
        plan = make_plan(
            trainer.task,
            num=preview.num,
            seed=preview.seed,
            block_size=block_size or BLOCK_SIZE,
            options=from_data | asked,
        )
        pixels = torch.cat([part for _, part in sample_all(trainer.task, plan)])
        if trainer.is_main:
            folder = trainer.folder.samples / f"step_{step:08d}"
            images, columns = _with_steering(pixels, from_data, preview.columns)
            path = write_grid(folder, images, columns=columns)
            logger.info("preview at step %d: %s", step, path)

    return draw


def options_from_data(task: Task, dataset: Dataset, num: int) -> dict[str, Any]:
    """What the task's conditions take from `num` items spread over the data set; nothing for most tasks."""
    drawing = able(task, DrawsAgain)
    if drawing is None:
        return {}
    items = [dataset.fetch(index * len(dataset) // num) for index in range(num)]
    return drawing.conditions_from(collate(items))


def _with_steering(
    pixels: Tensor, given: Mapping[str, Any], columns: int | None
) -> tuple[Tensor, int | None]:
    """Samples as uint8, rows of the pictures that steered them above their rows, and the columns."""
    steering = next((value for value in given.values() if _is_like(value, pixels)), None)
    if steering is None:
        return to_uint8(pixels), columns
    width = min(columns or math.ceil(math.sqrt(len(pixels))), len(pixels))
    missing = -len(pixels) % width
    pairs = torch.stack(
        [pad(part.cpu(), (0, 0) * 3 + (0, missing), value=1.0) for part in (steering, pixels)]
    )
    return to_uint8(rearrange(pairs, "two (rows b) c h w -> (rows two b) c h w", b=width)), width


def _is_like(value: Any, pixels: Tensor) -> bool:
    return isinstance(value, torch.Tensor) and value.shape == pixels.shape
