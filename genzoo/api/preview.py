"""Pictures during training: the same noise and conditions each time, drawn with the averaged weights."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from genzoo.api.sample_folder import write_grid
from genzoo.api.samples import to_uint8
from genzoo.api.sampling import BLOCK_SIZE, make_plan, sample_all
from genzoo.core.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from genzoo.training.trainer import Trainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Preview:
    """A recipe's `preview:` section.

    every: optimizer steps between two previews; 0 draws none.   num: pictures.   columns: of the grid.
    class_labels: one for each picture; every class in turn when left out.   steps, guidance_scale: in place
    of the recipe's sampler section.
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


def preview_function(preview: Preview, block_size: int | None) -> Callable[[Trainer, int], None]:
    """What a PreviewHook calls: draw a grid into samples/step_*/ of the run's folder, of clips also a GIF."""

    def draw(trainer: Trainer, step: int) -> None:
        plan = make_plan(
            trainer.task,
            num=preview.num,
            seed=preview.seed,
            block_size=block_size or BLOCK_SIZE,
            options=preview.options(),
        )
        pixels = torch.cat([part for _, part in sample_all(trainer.task, plan)])
        if trainer.is_main:
            folder = trainer.folder.samples / f"step_{step:08d}"
            path = write_grid(folder, to_uint8(pixels), columns=preview.columns)
            logger.info("preview at step %d: %s", step, path)

    return draw
