"""A picture of what a model makes: one row of samples for each class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genzoo.core.types import MeasuredRun


def sample_grid(
    run: MeasuredRun, *, rows: int = 10, columns: int = 10, seed: int = 0, guidance_scale: float | None = None
) -> dict[str, str]:
    """Write a class-conditional grid, row i showing class i, to samples/grid.png in the run's folder.

    Samples come from the averaged (EMA) weights. Returns the path under "grid"; clips are shown as strips of
    frames, and play in samples/grid.gif, "animation".
    """
    num_classes = run.dataset().num_classes or 0
    shown = [row % num_classes for row in range(rows) for _ in range(columns)] if num_classes else None
    given = {"class_labels": shown, "guidance_scale": guidance_scale}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    samples = run.sample(num=rows * columns, seed=seed, **options)
    path = run.folder / "samples" / "grid.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    samples.grid(columns=columns).save(path)
    if samples.pixels.ndim == 4:
        return {"grid": str(path)}
    return {
        "grid": str(path),
        "animation": str(samples.animation(columns=columns).save(path.with_suffix(".gif"))),
    }
