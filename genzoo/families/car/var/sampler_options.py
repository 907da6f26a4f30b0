"""How tokens are drawn from a VAR or a CAR: the sampler's options, and the decoder with its guidance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genzoo.autoregression.sampling import NextScaleOptions, Predict
from genzoo.core.errors import UsageError, did_you_mean
from genzoo.families.car.control.model import CAR
from genzoo.families.car.var.model import VAR

SAMPLER = "next_scale"


def checked_options(section: Mapping[str, Any]) -> dict[str, Any]:
    """A sampler section, checked. Raises UsageError."""
    known = list(NextScaleOptions.__dataclass_fields__)
    unknown = [key for key in section if key not in (*known, "name")]
    if unknown or section.get("name", SAMPLER) != SAMPLER:
        wrong = unknown[0] if unknown else f"name={section['name']}"
        hint = did_you_mean(wrong, known) or f"{SAMPLER} takes {', '.join(known)}"
        raise UsageError(f"tokens are drawn without {wrong!r}", fix=hint)
    draw_options(section)
    return dict(section)


def draw_options(section: Mapping[str, Any]) -> NextScaleOptions:
    """A checked section as options."""
    return NextScaleOptions(**{key: value for key, value in section.items() if key != "name"})


def guided_decoder(
    model: VAR | CAR, labels: Tensor, features: Sequence[Tensor] | None, *, guided: bool
) -> Predict:
    """What predicts scale after scale.   labels: (b,); guided adds a second half without them.

    features: of an encoded control, or None.
    """
    if guided:
        labels = torch.cat([labels, torch.full_like(labels, model.num_classes)])
    if features is None:
        return model.decoder(labels)
    assert isinstance(model, CAR)
    return model.decoder(labels, features)
