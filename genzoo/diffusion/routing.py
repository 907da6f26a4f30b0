"""What a task is told about routing tokens, checked before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from genzoo.core.contracts import able
from genzoo.core.contracts.models import RoutesTokens
from genzoo.core.errors import UsageError
from genzoo.core.seeds import SampleStreams
from genzoo.nn.routing import Route, kept_places, num_kept

WHERE = "task.routing"


@dataclass(frozen=True)
class Routing:
    """rate: share of tokens that pass by blocks start to end, both included, counted from 0."""

    rate: float
    start: int
    end: int
    num_tokens: int

    def draw(self, generator: SampleStreams, like: Tensor) -> Route:
        """The route of a batch, from the samples' own streams, on the device of `like`."""
        noise = generator.rand_rows(self.num_tokens, like.device)
        return Route(kept_places(noise, self.rate), self.start, self.end)


def build_routing(section: Mapping[str, Any] | None, model: nn.Module) -> Routing | None:
    """The routing of a section {"rate": 0.5, "start": 1, "end": 2}; None for none, or for a rate of 0.

    Raises UsageError for blocks that do not exist, a rate that leaves nothing, a model without a sequence.
    """
    if section is None:
        return None
    known = {"rate", "start", "end"}
    if set(section) != known or not all(_is_number(section[name]) for name in known):
        raise UsageError(
            f"routing is {dict(section)}", where=WHERE, fix="give all three: {rate: 0.5, start: 1, end: 2}"
        )
    rate, start, end = float(section["rate"]), section["start"], section["end"]
    if not 0 <= rate < 1:
        raise UsageError(f"the rate of routing is {rate}", where=WHERE, fix="use a share from 0 to below 1")
    routed = able(model, RoutesTokens)
    if routed is None:
        raise UsageError(
            f"the tokens of {type(model).__name__} cannot be routed",
            where=WHERE,
            why="its blocks are not one sequence over the tokens of a picture",
            fix="leave routing out",
        )
    num_tokens, num_blocks = routed.routed_sizes()
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start <= end < num_blocks):
        raise UsageError(
            f"routing takes blocks {start} to {end} of a model with blocks 0 to {num_blocks - 1}",
            where=WHERE,
            fix="choose 0 <= start <= end < model.depth",
        )
    if num_kept(num_tokens, rate) < 1:
        raise UsageError(
            f"routing {rate} of {num_tokens} tokens leaves none", where=WHERE, fix="choose a lower rate"
        )
    return Routing(rate, start, end, num_tokens) if rate else None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
