"""What can be computed once before training: the latents of a recipe's images."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from genzoo.api.recipes.build import build_codec, build_dataset
from genzoo.api.recipes.plan import plan_of
from genzoo.core.errors import UsageError
from genzoo.core.memory import freed_memory_kept
from genzoo.core.processes import chosen_device

if TYPE_CHECKING:
    from collections.abc import Callable

    from genzoo.api.recipes.plan import RunPlan
    from genzoo.core.processes import World
    from genzoo.core.recipe import Recipe
    from genzoo.core.types import LatentCodec
    from genzoo.data.cached_clips import CachedClips
    from genzoo.data.cached_latents import CachedLatents
    from genzoo.data.latent_cache import CacheReport
    from genzoo.data.latent_check import CacheCheck


@freed_memory_kept()
def prepare_latents(
    recipe: Recipe,
    *,
    batch_size: int = 32,
    num_workers: int = 0,
    device: str | None = None,
    prune: bool = False,
    progress: Callable[[int, int], None] | None = None,
    world: World | None = None,
) -> CacheReport:
    """Fill the folder `data.latent_cache` with the moments of every image; see `build_latent_cache`."""
    from genzoo.data.latent_cache import build_latent_cache

    plan, codec = _plan_and_codec(recipe)
    return build_latent_cache(
        build_dataset(plan, world),
        codec,
        batch_size=batch_size,
        num_workers=num_workers,
        device=chosen_device(device),
        prune=prune,
        progress=progress,
        world=world,
    )


def check_latents(
    recipe: Recipe, *, num_workers: int = 0, progress: Callable[[int, int], None] | None = None
) -> CacheCheck:
    """Compare the folder `data.latent_cache` with every image; see `check_latent_cache`."""
    from genzoo.data.latent_check import check_latent_cache

    plan, codec = _plan_and_codec(recipe)
    dataset = cast("CachedLatents | CachedClips", build_dataset(plan))
    return check_latent_cache(dataset, codec, num_workers=num_workers, progress=progress)


def _plan_and_codec(recipe: Recipe) -> tuple[RunPlan, LatentCodec]:
    plan = plan_of(recipe)
    if not plan.data.arguments.get("latent_cache"):
        raise UsageError(
            f"{recipe.source} names no folder for latents",
            fix="add data.latent_cache=FOLDER, here and in training",
        )
    codec = build_codec(plan)
    if codec is None:
        raise UsageError(f"{recipe.source} has no codec: it trains on pixels, which need no cache")
    return plan, codec
