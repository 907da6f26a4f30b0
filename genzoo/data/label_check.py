"""Labels against the model, and class names that are likely to be a mistake."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from genzoo.core.contracts.datasets import labels_of
from genzoo.core.errors import DataError
from genzoo.core.wording import counted

if TYPE_CHECKING:
    from genzoo.core.types import Dataset

SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing", "eval", "holdout"}


MOST = 10  # classes that are named in a line


def class_counts(dataset: Dataset) -> dict[str, int]:
    """How many items each class has, in the order of the labels; {} where that is not known."""
    labels, names = labels_of(dataset), dataset.class_names
    if labels is None or names is None:
        return {}
    return dict(zip(names, torch.bincount(labels, minlength=len(names)).tolist(), strict=False))


def class_line(classes: Mapping[str, int]) -> str:
    """Number, labels, names and counts of classes in one line; empty without classes."""
    said = [f"{label} {name} ({count:,})" for label, (name, count) in enumerate(classes.items())]
    more = ", ..." if len(said) > MOST else ""
    return f"{counted(len(said), 'class', 'classes')}: {', '.join(said[:MOST])}{more}" if said else ""


def suspicious_classes(names: Sequence[str] | None) -> list[str]:
    """What is odd about the names of classes: splits of the data, or names that look alike."""
    if not names:
        return []
    odd = []
    if len(names) > 1 and {name.lower() for name in names} <= SPLITS:
        odd.append(
            f"the classes are {', '.join(names)}, which are likely splits: data.root may be one of them"
        )
    alike = defaultdict(list)
    for name in names:
        alike[unicodedata.normalize("NFKC", name).casefold().strip()].append(name)
    odd += [
        f"the classes {' and '.join(ascii(name) for name in group)} look alike"
        for group in alike.values()
        if len(group) > 1
    ]
    return odd


def check_labels(dataset: Any, num_classes: int | None) -> None:
    """Raise DataError when the labels do not fit a model of `num_classes` (None or 0: unconditional)."""
    if not num_classes:
        return
    if dataset.num_classes is None:
        raise DataError(
            f"the model has {num_classes} classes, but the data have no labels",
            fix="give each class its folder, or train without classes: model.num_classes=0",
        )
    labels = labels_of(dataset)
    highest = dataset.num_classes - 1 if labels is None else int(labels.max())
    lowest = 0 if labels is None else int(labels.min())
    if lowest < 0 or highest >= num_classes:
        raise DataError(
            f"the data have labels {lowest} to {highest}, but the model has {num_classes} classes",
            fix=f"set model.num_classes={dataset.num_classes}, or auto",
        )
