"""Are there pictures enough, and are they what they seem? Asked before anything is computed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from genzoo.core.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.evaluation.protocols import Protocol

LEAST = {"mind": 4, "kid_all": 2, "cmmd": 2, "fid": 2, "sfid": 2, "frechet": 2, "fdd": 2, "fvd": 2}
DUPLICATES = 0.01  # share of exact twins among rows that is told


def require_enough(protocol: Protocol, generated: int, reference: int) -> None:
    """Raise DataError when a metric needs more pictures than there are, with the option that helps.

    generated: how many are judged.   reference: how many pictures it has.
    """
    smaller = min(generated, reference)
    for name, options in protocol.metrics.items():
        wanted, why = _needed(name, options)
        if smaller >= wanted:
            continue
        which = "the reference has" if reference <= generated else "there are"
        raise DataError(
            f"{protocol.name}: {name} needs {wanted} pictures{why}, {which} {smaller}",
            fix=_remedy(name, smaller),
        )


def _needed(name: str, options: Mapping[str, Any]) -> tuple[int, str]:
    if name == "kid":
        size = int(options.get("subset_size", 1000))
        return max(size, 2), " for each subset" if size > 2 else ""
    if name in ("precision_recall", "prdc"):
        k = int(options.get("k", 3 if name == "precision_recall" else 5))
        return k + 1, f" for {k} neighbours"
    return LEAST.get(name, 1), ""


def _remedy(name: str, smaller: int) -> str:
    if name == "kid" and smaller >= 2:
        return (
            f"--num {smaller} (evaluation.num={smaller} in a recipe): subsets then are of {smaller}, and the"
            " result says so; or more reference pictures"
        )
    return "give more pictures"


def duplicates(rows: Tensor) -> int:
    """How many rows (n, d) repeat an earlier one exactly."""
    plain = rows.detach().cpu().contiguous().numpy()
    return len(plain) - len({hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in plain})


def duplicate_warning(what: str, rows: Tensor) -> list[str]:
    """A line about exact twins, when there are more than 1 % of them."""
    found = duplicates(rows)
    if found <= DUPLICATES * len(rows):
        return []
    return [f"{found} of {len(rows)} {what} pictures repeat another one exactly, as the network sees them"]
