"""What of a model, or of a codec, can leave as a graph: modules with examples of what they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Graph:
    """module: float32, takes tensors and gives one, rows in the first axis of each.   inputs: an example of
    two rows.   names: of the inputs.   output: the result's name.
    """

    module: nn.Module
    inputs: Sequence[Tensor]
    names: Sequence[str]
    output: str


class Called(nn.Module):
    """A method of one tensor as the forward pass of a module of its own, which shares its weights."""

    def __init__(self, owner: nn.Module, method: str) -> None:
        super().__init__()
        self.owner, self.method = owner, method

    def forward(self, x: Tensor) -> Tensor:
        """What the method gives."""
        output: Tensor = getattr(self.owner, self.method)(x)
        return output


def graph(module: nn.Module, output: str, **inputs: Tensor | None) -> Graph:
    """A graph of inputs by name, each an example of one row; those that are None are left out."""
    given = {name: example for name, example in inputs.items() if example is not None}
    # twice: torch would take a single row for the only number of rows that there is
    rows = [example.repeat_interleave(2, dim=0) for example in given.values()]
    return Graph(module, rows, list(given), output)
