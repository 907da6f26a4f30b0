"""How a model can be run and its tensors be treated: in parts, compiled, replayed, cast, shared out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn


class NamesBlocks(Protocol):
    """Needed for train.sharding: what lies in no block is gathered for the whole of a step."""

    def sharded_blocks(self) -> Sequence[nn.Module]:
        """Parts that run one after another, each called as a module, whose weights are gathered in turn."""


class CompilesBlocks(Protocol):
    """Needed for train.compile, and for compile in sampling."""

    def compiled_blocks(self) -> Sequence[nn.Module]:
        """Parts that are one graph each, called as modules; equal ones share their compiled code."""


class ReplaysForward(Protocol):
    """Needed for cuda_graphs. replays_forward: whether forward takes tensors and gives one, looks at no value
    and keeps nothing, so that what it does once can be replayed."""

    replays_forward: bool


class FusesDirections(Protocol):
    """A kernel's backend, which is a module, that reads its input once for both directions."""

    both_directions: Callable[..., Any]


class KeepsExact(Protocol):
    """uncast: of a module, names of parameters inside it that are read in float32 even under autocast."""

    uncast: Collection[str]


class SkipsDecay(Protocol):
    """undecayed: of a module, names of parameters of its that an optimizer leaves without weight decay; of a
    mapping of parameters, those of its names. It is no note on the parameter: whoever builds parameters
    again, as accelerate does in loading, passes on what is noted there and fails."""

    undecayed: Collection[str]


class MarkedUndecayed(Protocol):
    """_no_weight_decay: True on a parameter of other projects' modules that never decays."""

    _no_weight_decay: bool


class ShapesSlots(Protocol):
    """An optimizer of which some slots are not shaped as their parameter."""

    def slot_shape(self, slot: str, parameter: Tensor) -> tuple[int, ...] | None:
        """The shape of such a slot; None for those that are shaped as their parameter."""


class HasDerivedBuffers(Protocol):
    """derived_buffers: of a module; names of buffers that follow from its arguments and are not stored."""

    derived_buffers: Sequence[str]


class Shards(Protocol):
    """A tensor of which each process holds a part."""

    def full_tensor(self) -> Tensor:
        """The whole of it, on every process."""

    def to_local(self) -> Tensor:
        """The part that this process holds."""
