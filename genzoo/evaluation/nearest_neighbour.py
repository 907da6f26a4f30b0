"""Two honest numbers for a small class-conditional model: are the samples right, and do they differ?

A k-nearest-neighbour classifier on the real images says whether a sample shows the class it was asked for.
Accuracy alone rewards a model that repeats one good image per class, so the mean distance between samples of
one class is given as a fraction of the same distance between real images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from genzoo.core.errors import DataError
from genzoo.core.registry import DATASETS

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.core.types import Dataset, MeasuredRun


def classify(samples: Tensor, real: Tensor, labels: Tensor, *, k: int = 3, chunk: int = 1024) -> Tensor:
    """Class of each sample by majority among its k nearest real images; ties go to the nearest of the tied.

    samples: (m, d), real: (n, d) features.   labels: (n,) int64.   Returns (m,) int64.
    """
    if len(real) < k:
        raise DataError(f"{k} nearest neighbours need at least {k} real images, got {len(real)}")
    nearest = torch.cat(
        [torch.cdist(part, real).topk(k, largest=False).indices for part in samples.split(chunk)]
    )
    votes = labels[nearest]
    counts = (votes[:, :, None] == votes[:, None, :]).sum(-1)
    # argmax returns the first maximum, and neighbours are sorted by distance: the tie-break comes for free
    return votes.gather(1, counts.argmax(1, keepdim=True)).squeeze(1)


def mean_class_distance(features: Tensor, labels: Tensor) -> float:
    """Mean Euclidean distance between two images of one class, averaged over the classes with two or more.

    features: (n, d).   labels: (n,) int64.
    """
    means = []
    for label in labels.unique():
        members = features[labels == label]
        if len(members) > 1:
            means.append(torch.pdist(members).mean())
    if not means:
        raise DataError("no class has two images, so there is no distance to measure")
    return torch.stack(means).mean().item()


def nearest_neighbour(
    run: MeasuredRun,
    *,
    num: int = 1000,
    k: int = 3,
    seed: int = 0,
    guidance_scale: float | None = None,
    against: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Sample `num` images over all classes in turn and compare them with the run's own data set.

    against: changes to the `data:` section, such as {"split": "test"}, that name images which training did
    not see; the same samples are then judged by those as well.
    Returns accuracy (share whose k nearest real images vote for the class asked for) and diversity (mean
    distance between samples of one class over that of real images), and both again as held_out_*. Pixels in
    [-1, 1] are the features.
    """
    dataset = run.dataset()
    if not dataset.num_classes:
        raise DataError("nearest_neighbour needs a data set with classes", where=str(run.folder))
    class_labels = torch.arange(num) % dataset.num_classes
    options: dict[str, Any] = {} if guidance_scale is None else {"guidance_scale": guidance_scale}
    samples = run.sample(class_labels=class_labels.tolist(), seed=seed, **options).pixels.flatten(1).float()
    result = judge(samples, class_labels, *real_images(dataset), k=k)
    if against is not None:
        found = judge(samples, class_labels, *real_images(other_images(run, against)), k=k)
        result |= {f"held_out_{name}": value for name, value in found.items()}
    return result


nearest_neighbour.needs_classes = True  # type: ignore[attr-defined]


def judge(samples: Tensor, class_labels: Tensor, real: Tensor, labels: Tensor, *, k: int) -> dict[str, float]:
    """Accuracy and diversity of samples (m, d) asked for by class, by real images (n, d) and their labels."""
    right = (classify(samples, real, labels, k=k) == class_labels).float().mean().item()
    diversity = mean_class_distance(samples, class_labels) / mean_class_distance(real, labels)
    return {"accuracy": right, "diversity": diversity}


def other_images(run: MeasuredRun, changes: Mapping[str, Any]) -> Dataset:
    """The data set of a run's `data:` section under changes."""
    data = run.plan.data
    dataset: Dataset = DATASETS.get(data.name)(**{**data.arguments, **changes})
    return dataset


def real_images(dataset: Any) -> tuple[Tensor, Tensor]:
    """All images of a data set without augmentation: (n, d) float32 in [-1, 1], and their labels (n,)."""
    items = [dataset.fetch(index) for index in range(len(dataset))]
    pixels = torch.stack([item["pixels"] for item in items]).flatten(1).float()
    return pixels, torch.tensor([int(item["class_labels"]) for item in items])
