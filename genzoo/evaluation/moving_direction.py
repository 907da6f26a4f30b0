"""Do clips whose class says where something goes go there?

A clip goes where the centre of what differs from its background goes, from the first frame to the last. Real
clips of a class say what is asked for; a sample is right if no other class's way is nearer to its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from genzoo.core.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.core.types import Dataset, MeasuredRun

VISIBLE = 0.1  # differences from the background up to here are noise
SAME_WAY = 0.5  # pixels; classes whose ways differ by less ask for the same


def ways(clips: Tensor) -> Tensor:
    """(n, 2): how far what is seen goes from the first frame to the last, in pixels, down and to the right.

    clips: (n, f, c, h, w) in [-1, 1], on a background that covers more than half of each frame.
    """
    ends = clips[:, [0, -1]]
    background = ends.flatten(3).median(-1).values[..., None, None]
    seen = ((ends - background).abs().mean(2) - VISIBLE).clamp(min=0)
    total = seen.sum((-2, -1)).clamp(min=torch.finfo(seen.dtype).tiny)
    sides = (seen.sum(-1), seen.sum(-2))
    centres = [(side * torch.arange(side.shape[-1])).sum(-1) / total for side in sides]
    return torch.stack(centres, dim=-1).diff(dim=1)[:, 0]


def moving_direction(
    run: MeasuredRun,
    *,
    num: int = 240,
    reference: int = 1440,
    seed: int = 0,
    guidance_scale: float | None = None,
) -> dict[str, float]:
    """Sample `num` clips over all classes in turn and compare where they go with where real clips go.

    Returns direction (share of clips whose way from the first frame to the last is nearest to that of the
    class asked for), real_direction (the share of real clips of which that is so), and chance (that of clips
    which go the way of a class drawn at random). reference: how many real clips to look at, from all over the
    data set. Raises DataError for data without classes or with a single frame.
    """
    dataset = run.dataset()
    if not dataset.num_classes or len(dataset.sample_shape) != 4 or dataset.sample_shape[0] < 2:
        raise DataError(
            "moving_direction needs clips of at least two frames with classes", where=str(run.folder)
        )
    real, labels = _real(dataset, reference)
    known, positions = labels.unique(return_inverse=True)
    asked = torch.arange(num) % len(known)
    means = torch.stack([real[labels == label].mean(0) for label in known])
    options: dict[str, Any] = {} if guidance_scale is None else {"guidance_scale": guidance_scale}
    samples = run.sample(class_labels=known[asked].tolist(), seed=seed, **options)
    return {
        "direction": _right(ways(samples.pixels.float()), means, asked),
        "real_direction": _right(real, means, positions),
        "chance": (torch.cdist(means, means) < SAME_WAY).float().mean().item(),
    }


moving_direction.needs_classes = True  # type: ignore[attr-defined]


def _real(dataset: Dataset, reference: int) -> tuple[Tensor, Tensor]:
    """Ways (n, 2) and labels (n,) of real clips from all over the data set."""
    rows = torch.linspace(0, len(dataset) - 1, min(reference, len(dataset))).long().tolist()
    items = [dataset.fetch(row) for row in rows]
    labels = torch.tensor([int(item["class_labels"]) for item in items])
    return ways(torch.stack([item["pixels"] for item in items])), labels


def _right(found: Tensor, means: Tensor, asked: Tensor) -> float:
    """The share of ways (n, 2) to which no class's is nearer than that of the class asked for (n,)."""
    distance = torch.cdist(found, means)
    nearest = means[distance.argmin(1)]
    return ((nearest - means[asked]).norm(dim=-1) < SAME_WAY).float().mean().item()
