"""Class labels in training and in sampling: checked, hidden now and then, and asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.contracts import able
from genzoo.core.contracts.models import HasClasses, remembered_arguments
from genzoo.core.errors import DataError, UsageError, unused_options
from genzoo.core.seeds import SampleStreams
from genzoo.core.types import Batch
from genzoo.diffusion.image_video import drop_still_labels, has_stills, still_labels
from genzoo.nn.embeddings import check_label_range, chosen_labels, drop_labels


def num_classes_of(model: nn.Module) -> int:
    """How many classes a model knows; 0 for one without."""
    labelled = able(model, HasClasses)
    return 0 if labelled is None else int(labelled.num_classes or 0)


def has_null_class(model: nn.Module) -> bool:
    """Whether there is a label that stands for no label."""
    return bool(remembered_arguments(model).get("null_class", True))


def checked_dropout(model: nn.Module, label_dropout: float) -> float:
    """The probability of hiding a label, 0 for a model without classes. Raises UsageError."""
    if not 0.0 <= label_dropout < 1.0:
        raise UsageError(f"label_dropout is a probability below 1, not {label_dropout}")
    if not num_classes_of(model):
        return 0.0
    if label_dropout and not has_null_class(model):
        raise UsageError(
            f"label_dropout is {label_dropout} but the model has no null class to put in a label's place",
            fix="build the model with null_class=True, or set label_dropout to 0",
        )
    return label_dropout


def training_labels(
    batch: Batch,
    num_stills: int,
    num_classes: int,
    label_dropout: float,
    generator: SampleStreams,
    device: torch.device,
) -> dict[str, Tensor]:
    """A batch's "class_labels" (b,), and "image_labels" (b, num_stills) of its stills, some hidden.

    Empty for a model without classes.   Raises DataError.
    """
    if not num_classes:
        return {}
    labels = _class_labels(batch, num_classes).to(device)
    found = {"class_labels": drop_labels(labels, label_dropout, num_classes, generator)}
    if has_stills(batch):
        stills = still_labels(batch, num_stills)
        check_label_range(stills, num_classes, DataError)
        stills = stills.to(device)
        found["image_labels"] = drop_still_labels(stills, label_dropout, num_classes, generator)
    return found


def _class_labels(batch: Batch, num_classes: int) -> Tensor:
    if "class_labels" not in batch:
        raise DataError(
            f"the model has {num_classes} classes but the data have no class_labels",
            fix="use data with classes, or a model with num_classes=0",
        )
    check_label_range(batch["class_labels"], num_classes, DataError)
    labels: Tensor = batch["class_labels"]
    return labels.long()


def class_conditions(
    num: int, class_labels: int | Sequence[int] | Tensor | None, num_classes: int, unknown: Mapping[str, Any]
) -> Batch:
    """Labels for `num` samples: one for all, or one for each; every class in turn when left out."""
    if unknown:
        raise unused_options(unknown, ["class_labels"])
    if not num_classes:
        if class_labels is not None:
            raise UsageError("class_labels were given, but the model is unconditional")
        return {}
    return {"class_labels": chosen_labels(num, class_labels, num_classes)}


def sampling_labels(
    model: nn.Module, conditions: Batch, num: int, guidance_scale: float, *, asked: float | None = None
) -> Tensor | None:
    """The labels of `num` samples, (num,), or None for a model without classes. Raises UsageError.

    guidance_scale: of the recipe or as asked for; without classes there is nothing to guide, and it counts
    as 1.   asked: by the caller alone, who is told so.
    """
    if not num_classes_of(model):
        if asked not in (None, 1):
            raise UsageError(
                f"guidance_scale is {asked} but the model is unconditional", fix="leave guidance_scale out"
            )
        return None
    if guidance_scale != 1.0 and not has_null_class(model):
        raise UsageError(
            "guidance needs a model trained with dropped labels, and this one has no null class",
            fix="set guidance_scale to 1",
        )
    labels: Tensor | None = conditions.get("class_labels")
    if labels is None or len(labels) != num:
        raise UsageError(
            f"{0 if labels is None else len(labels)} class_labels for {num} samples",
            fix="use task.conditions(num)",
        )
    return labels
