"""Controls extracted once, into the cache that a recipe's data name; and the sheet to look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genzoo.api.recipes.build import build_dataset
from genzoo.api.recipes.plan import plan_of
from genzoo.core.controls import build_control
from genzoo.core.errors import DataError, UsageError
from genzoo.core.memory import freed_memory_kept
from genzoo.core.processes import World, chosen_device
from genzoo.data.cached_controls import CachedControls, ControlCodec
from genzoo.data.latent_cache import CacheReport, build_latent_cache
from genzoo.pictures.grid import make_grid
from genzoo.pictures.pixels import to_uint8

if TYPE_CHECKING:
    from genzoo.core.recipe import Recipe

SHOWN = 8
SHEET = "preview.png"


@freed_memory_kept()
def prepare_controls(
    recipe: Recipe,
    *,
    batch_size: int = 32,
    num_workers: int = 0,
    device: str | None = None,
    prune: bool = False,
    progress: Callable[[int, int], None] | None = None,
    world: World | None = None,
) -> tuple[CacheReport, Path]:
    """Fill the folder `data.controls` with the control of every picture, by the extractor `task.control`.

    Killed at any point, the next call goes on from there. Returns what was done, and a sheet to look at.
    """
    plan = plan_of(recipe, but=("model", "codec"))
    if not plan.data.arguments.get("controls"):
        raise UsageError(
            f"{recipe.source} names no folder for controls",
            fix="add data.controls=FOLDER, here and in training",
        )
    control = plan.task.arguments.get("control")
    if control is None:
        raise UsageError(f"{recipe.source} names no extractor", fix="add task.control=canny")
    world = world or World.single()
    extractor, dataset = build_control(control), build_dataset(plan, world)
    assert isinstance(dataset, CachedControls)
    dataset.share_work(world)
    report = build_latent_cache(
        dataset.rows,
        ControlCodec(extractor),
        batch_size=batch_size,
        num_workers=num_workers,
        device=chosen_device(device),
        prune=prune,
        progress=progress,
        world=world,
    )
    dataset.bind_control(extractor)
    return report, world.on_first(lambda: save_sheet(_some(dataset), dataset.folder / SHEET))


def save_sheet(pairs: list[tuple[Tensor, Tensor]], path: Path) -> Path:
    """Pictures beside their controls, two pairs in a row.   pairs: (3, h, w) each, in [-1, 1]."""
    images = torch.stack([to_uint8(one) for pair in pairs for one in pair])
    return make_grid(images, columns=4).save(path)


def _some(dataset: CachedControls) -> list[tuple[Tensor, Tensor]]:
    """Pairs from all over the data set; pictures that cannot be read are not shown."""
    pairs = []
    for index in torch.linspace(0, len(dataset) - 1, min(SHOWN, len(dataset))).long().tolist():
        try:
            pairs.append((dataset.images.fetch(index)["pixels"], dataset.control(index)))
        except DataError:
            continue
    if not pairs:
        raise DataError("not one picture could be read", where=str(dataset.folder))
    return pairs
