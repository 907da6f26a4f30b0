"""Two honest numbers for a small class-conditional model: are the samples right, and do they differ?

A k-nearest-neighbour classifier on the real images says whether a sample shows the class it was asked for.
Accuracy alone rewards a model that repeats one good image per class, so the mean distance between samples of
one class is given as a fraction of the same distance between real images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch.nn.functional import normalize

from genzoo.core.errors import DataError
from genzoo.core.registry import DATASETS
from genzoo.evaluation.features import build_network
from genzoo.pictures.pixels import to_uint8

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.core.types import Dataset, MeasuredRun


BATCH = 64


def classify(samples: Tensor, real: Tensor, labels: Tensor, *, k: int = 3, chunk: int = 1024) -> Tensor:
    """Class of each sample by majority among its k nearest real images; ties go to the nearest of the tied.

    samples: (m, d), real: (n, d) features.   labels: (n,) int64.   Returns (m,) int64.
    """
    if len(real) < k:
        raise DataError(f"{k} nearest neighbours need at least {k} real images, got {len(real)}")
    nearest = torch.cat(
        [torch.cdist(part, real).topk(k, largest=False).indices for part in samples.split(chunk)]
    )
    return vote(labels[nearest])


def real_accuracy(
    pictures: Tensor, labels: Tensor, real: Tensor, real_labels: Tensor, *, k: int, chunk: int = 256
) -> float:
    """The share of real images that their k nearest others put into their class; equals do not vote.

    pictures: (m, d), real: (n, d) features.
    """
    right = 0
    for part, asked in zip(pictures.split(chunk), labels.split(chunk), strict=True):
        distance = torch.cdist(part, real, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distance.masked_fill(distance == 0, torch.inf).topk(k, largest=False).indices
        right += int((vote(real_labels[nearest]) == asked).sum())
    return right / len(pictures)


def vote(labels: Tensor) -> Tensor:
    """The class of most neighbours, of the nearest of the tied.   labels: (m, k), nearest first."""
    counts = (labels[:, :, None] == labels[:, None, :]).sum(-1)
    # argmax returns the first maximum, and neighbours are sorted by distance: the tie-break comes for free
    return labels.gather(1, counts.argmax(1, keepdim=True)).squeeze(1)


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
    features: str | None = None,
    weights: str | None = None,
) -> dict[str, float]:
    """Sample `num` images over all classes in turn and compare them with the run's own data set.

    against: changes to the `data:` section, such as {"split": "test"}, that name images which training did
    not see; the same samples are then judged by those as well.
    Returns accuracy (share whose k nearest real images vote for the class asked for) and diversity (mean
    distance between samples of one class over that of real images), and both again as held_out_*. Pixels in
    [-1, 1] are the features, or with `features` those of a network by name, of length one: then real_accuracy
    is the accuracy of the real images themselves, which their equals have no part in.   weights: its file.
    """
    dataset = run.dataset()
    if not dataset.num_classes:
        raise DataError("nearest_neighbour needs a data set with classes", where=str(run.folder))
    class_labels = torch.arange(num) % dataset.num_classes
    options: dict[str, Any] = {} if guidance_scale is None else {"guidance_scale": guidance_scale}
    pixels = run.sample(class_labels=class_labels.tolist(), seed=seed, **options).pixels
    look = (lambda images: images.flatten(1).float()) if features is None else looking(features, weights)
    samples, (own, labels) = look(pixels), real_pictures(dataset)
    own = look(own)
    others = {"": (own, labels)}
    if against is not None:
        images, other_labels = real_pictures(other_images(run, against))
        others["held_out_"] = look(images), other_labels
    result: dict[str, float] = {}
    for name, judges in others.items():
        found = judge(samples, class_labels, *judges, k=k)
        if features is not None:
            found["real_accuracy"] = real_accuracy(own, labels, *judges, k=k)
        result |= {f"{name}{key}": value for key, value in found.items()}
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


def looking(features: str, weights: str | None = None) -> Callable[[Tensor], Tensor]:
    """What makes features (n, d) of length one of pictures (n, 3, h, w) in [-1, 1], by a network's name."""
    network = build_network(features, weights=weights)

    def look(pictures: Tensor) -> Tensor:
        found = []
        for part in to_uint8(pictures).split(BATCH):
            images = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in part.cpu()]
            prepare = network.prepare
            batch = part if prepare is None else torch.stack([prepare(image) for image in images])
            found.append(normalize(network.extract(batch)["pool"].float().clone(), dim=1))
        return torch.cat(found)

    return look


def real_images(dataset: Any) -> tuple[Tensor, Tensor]:
    """All images of a data set without augmentation: (n, d) float32 in [-1, 1], and their labels (n,)."""
    pixels, labels = real_pictures(dataset)
    return pixels.flatten(1).float(), labels


def real_pictures(dataset: Any) -> tuple[Tensor, Tensor]:
    """The same as pictures, (n, c, h, w)."""
    items = [dataset.fetch(index) for index in range(len(dataset))]
    pixels = torch.stack([item["pixels"] for item in items])
    return pixels, torch.tensor([int(item["class_labels"]) for item in items])
