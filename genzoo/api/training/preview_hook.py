"""Pictures during training: the same noise and conditions each time, drawn with the averaged weights."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch.nn.functional import pad

from genzoo.api.sampling.class_names import captions_of, classes_of
from genzoo.api.sampling.folder import write_grid
from genzoo.api.sampling.plan import make_plan, sample_all
from genzoo.core.contracts import able
from genzoo.core.contracts.tasks import DrawsAgain
from genzoo.core.errors import NonFiniteError
from genzoo.data.collate import collate
from genzoo.pictures.pixels import to_uint8

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from genzoo.api.recipes.sections import Preview
    from genzoo.core.types import Dataset, Task
    from genzoo.training.hook import TrainingView

logger = logging.getLogger(__name__)


def preview_function(preview: Preview, block_size: int) -> Callable[[TrainingView, int], None]:
    """What a PreviewHook calls: draw a grid into samples/step_*/ of the run's folder, of clips also a GIF."""

    def draw(trainer: TrainingView, step: int) -> None:
        from_data = options_from_data(trainer.task, trainer.dataset, preview.num)
        asked = {key: value for key, value in preview.options().items() if value is not None}
        plan = make_plan(
            trainer.task,
            num=preview.num,
            seed=preview.seed,
            block_size=block_size,
            options=from_data | asked,
        )
        parts = []
        try:
            for _, part in sample_all(trainer.task, plan, trainer.world):
                if trainer.stop_requested:
                    return
                parts.append(part)
            pixels = torch.cat(parts)
        except NonFiniteError as error:  # training itself checks its weights
            logger.warning("no preview at step %d: %s", step, error)
            return
        images, columns = _with_steering(pixels, from_data, preview.columns)
        folder = trainer.folder.samples / f"step_{step:08d}"
        captions = None
        if len(images) == len(pixels):  # rows of pictures that steer have no class of their own
            captions = captions_of(plan.conditions, classes_of(plan.conditions, trainer.dataset.class_names))
        path = trainer.world.on_first(lambda: write_grid(folder, images, columns=columns, captions=captions))
        for hook in trainer.recorders:
            hook.on_picture(trainer, path)
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
