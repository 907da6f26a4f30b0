"""A registered name with its arguments: what a section of a recipe says, once it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Node:
    """name: of a registry.   arguments: for the factory of that name."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def section(self) -> dict[str, Any]:
        """The same as one mapping, the name under "name"."""
        return {"name": self.name, **self.arguments}

    def without(self, *names: str) -> Node:
        """The same name with fewer arguments."""
        return Node(self.name, {key: value for key, value in self.arguments.items() if key not in names})


def node_of(section: Mapping[str, Any]) -> Node:
    """A section that holds a name and arguments."""
    arguments = dict(section)
    return Node(arguments.pop("name"), arguments)
