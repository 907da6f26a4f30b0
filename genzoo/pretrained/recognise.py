"""Whose weights a file holds, told by its content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genzoo.core.errors import WeightsError
from genzoo.core.registry import CONVERTERS


def recognise(tree: Mapping[str, Any], source: str | Path) -> str:
    """The layout of CONVERTERS that a file is in. Raises WeightsError."""
    found = [name for name in CONVERTERS if CONVERTERS.get(name)().detect(tree)]
    if len(found) == 1:
        return found[0]
    why = (
        f"it fits {', '.join(found)}"
        if found
        else f"its entries begin {', '.join(map(repr, list(tree)[:3]))}"
    )
    raise WeightsError(
        f"cannot tell whose weights {Path(source).name} holds",
        why=why,
        fix=f"name the layout: --from {' or '.join(found or CONVERTERS.names())}",
    )
