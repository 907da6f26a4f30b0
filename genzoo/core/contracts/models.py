"""What only some models say of themselves: their arguments, their shape, their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from genzoo.core.contracts import able

if TYPE_CHECKING:
    from torch import Tensor


class RemembersArguments(Protocol):
    """arguments: the keyword arguments that built the model."""

    arguments: Mapping[str, Any]


def remembered_arguments(model: object) -> Mapping[str, Any]:
    """The keyword arguments that built a model; empty when it does not keep them."""
    kept = able(model, RemembersArguments)
    return {} if kept is None else kept.arguments


class StartsFrom(Protocol):
    """starts_from: names of arguments that say where first weights come from, and nothing else: whoever has
    all of a model's weights builds it without them."""

    starts_from: Sequence[str]


class HasClasses(Protocol):
    """num_classes: how many class labels the model knows; 0 or None for an unconditional one."""

    num_classes: int | None


class HasFrames(Protocol):
    """num_frames: of the clips (b, f, c, h, w) that the model takes."""

    num_frames: int


class HasPatches(Protocol):
    """patch_size: side of the squares of latents that become one token each."""

    patch_size: int


class PredictsVariance(Protocol):
    """learn_sigma: whether a second half of the model's output is a variance."""

    learn_sigma: bool


class NamesResidual(Protocol):
    """residual: the form of a block's residual branch; "dit" where nothing else is said."""

    residual: str


class OrdersBlocks(Protocol):
    """orders: of each block of a model of clips, the axis it works along: "spatial", "temporal", ..."""

    orders: Sequence[str]


class RefitsTensors(Protocol):
    """A model that can begin with tensors of another shape than its own."""

    def refitted(self, name: str, weights: Mapping[str, Tensor]) -> Tensor | None:
        """Tensor `name` of other weights as this model takes it, such as positions of other maps."""


class HasFixedTables(Protocol):
    """fixed_tables: names of parameters that are stored but never learned, such as sinusoidal positions."""

    fixed_tables: Sequence[str]


def fixed_tables(model: object) -> Sequence[str]:
    """Names of a model's parameters that are never learned."""
    fixed = able(model, HasFixedTables)
    return () if fixed is None else fixed.fixed_tables


class RoutesTokens(Protocol):
    """A model whose blocks can leave some tokens out in training; `forward` then takes `route`."""

    def routed_sizes(self) -> tuple[int, int]:
        """Tokens of a sample, and blocks they pass."""


class ReadsInChunks(Protocol):
    """A model of prompts reads long ones several times; those of one length are sampled together."""

    def num_chunks(self, prompt: str) -> int:
        """How often it reads to reach the prompt's end."""


class GivesExample(Protocol):
    """Needed for counting multiply-adds."""

    def example_inputs(self) -> tuple[Any, ...]:
        """The arguments of forward for one sample."""


class CountsLikePaper(Protocol):
    """Needed for `genzoo count --paper`."""

    def paper_count(self) -> dict[str, float]:
        """The count that the model's paper prints, "params" in millions and "gflops" in 10^9 among it."""


class GivesGraphs(Protocol):
    """A model or a codec whose networks can leave as graphs, such as ONNX files."""

    def graphs(self) -> Mapping[str, Any]:
        """Each network by the name of its file: a `genzoo.nn.graphs.Graph`."""
