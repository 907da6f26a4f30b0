"""Whether tensors hold numbers only, at a tenth of the price of looking at each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from genzoo.core.errors import NonFiniteError
from genzoo.core.sharded import own_part


def require_finite(parts: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Raise NonFiniteError that names a tensor with values that are not finite; of sharded ones the own part.

    parts: tensors by name, by what they are ("model", "ema", ...).
    """
    for part, tensors in parts.items():
        name = first_non_finite(tensors)
        if name is not None:
            raise NonFiniteError(
                f"the {part} tensor {name!r} has values that are not finite; no checkpoint was written",
                fix="resume from the last checkpoint with a lower learning rate or train.clip_grad_norm",
            )


@torch.no_grad()
def first_non_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of a tensor with a value that is not finite, or None.

    The norm is not finite whenever a value is not; it also overflows for finite ones above 1e19, and only
    those tensors are looked at value by value.
    """
    alike: dict[tuple[torch.device, torch.dtype], dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        part = own_part(tensor)
        if part.is_floating_point():
            alike[part.device, part.dtype][name] = part
    for group in alike.values():
        norms = torch.stack(torch._foreach_norm(list(group.values())))
        for name, norm in zip(group, norms.tolist(), strict=True):
            if not (abs(norm) < float("inf") or bool(torch.isfinite(group[name]).all())):
                return name
    return None
