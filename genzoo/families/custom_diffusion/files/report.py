"""What reports on merges and edits have in common."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Report:
    """seconds: that the work took."""

    seconds: float = dataclasses.field(default=0.0, kw_only=True)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return dataclasses.asdict(self)

    def kept(self) -> dict[str, Any]:
        """What files hold of it: without the time, so that the same command writes the same bytes."""
        return {name: value for name, value in self.to_dict().items() if name != "seconds"}
