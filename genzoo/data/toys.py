"""What the embedded data sets share: checks of their arguments, and items one by one from whole batches."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from genzoo.core.errors import DataError, did_you_mean


def check_choices(owner: str, what: str, given: Sequence[Any], known: Collection[Any]) -> None:
    """Raise DataError unless every value is known and none comes twice."""
    for value in given:
        if value not in known:
            names = [str(name) for name in known]
            hint = did_you_mean(str(value), names) or f"known: {', '.join(names[:7])}"
            raise DataError(f"{owner}: there is no {what} {value!r}; {hint}")
    if len(set(given)) < len(given):
        raise DataError(f"{owner}: {what} holds a value twice")


def check_at_least(owner: str, least: int, **values: int) -> None:
    """Raise DataError for the first argument that is smaller."""
    for name, value in values.items():
        if value < least:
            raise DataError(f"{owner}: {name} {value}, but it is at least {least}")


def first_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The item of a batch of one."""
    return {key: value[0] for key, value in batch.items()}


def block_means(images: Tensor, size: int) -> Tensor:
    """Square pictures shrunk by a whole factor.   (n, c, s, s) uint8 -> (n, c, size, size) uint8."""
    return avg_pool2d(images.float(), images.shape[-1] // size).round_().to(torch.uint8)
