"""How tokens are drawn from a VAR or a CAR: the sampler's options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genzoo.autoregression.sampling import NextScaleOptions
from genzoo.core.errors import UsageError, did_you_mean

SAMPLER = "next_scale"


def checked_options(section: Mapping[str, Any]) -> dict[str, Any]:
    """A sampler section, checked, with its name. Raises UsageError."""
    known = list(NextScaleOptions.__dataclass_fields__)
    unknown = [key for key in section if key not in (*known, "name")]
    if unknown or section.get("name", SAMPLER) != SAMPLER:
        wrong = unknown[0] if unknown else f"name={section['name']}"
        hint = did_you_mean(wrong, known) or f"{SAMPLER} takes {', '.join(known)}"
        raise UsageError(f"tokens are drawn without {wrong!r}", fix=hint)
    draw_options(section)
    return {"name": SAMPLER, **section}


def draw_options(section: Mapping[str, Any]) -> NextScaleOptions:
    """A checked section as options."""
    return NextScaleOptions(**{key: value for key, value in section.items() if key != "name"})
