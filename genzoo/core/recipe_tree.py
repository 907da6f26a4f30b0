"""Trees of recipe values: merge, dotted assignment, and conversion to plain data. No files, no YAML.

A tree is a dict of trees, a list of trees, or a `Leaf` that remembers the file it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from genzoo.core.errors import RecipeError

MISSING = "???"


@dataclass(frozen=True)
class Leaf:
    """A scalar, and the file or override that gave it."""

    value: Any
    origin: str


Tree: TypeAlias = "dict[str, Tree] | list[Tree] | Leaf"
NameOf: TypeAlias = "Callable[[dict[str, Tree]], Any]"
KeysOf: TypeAlias = "Callable[[dict[str, Tree]], Collection[str]]"


def own_name(node: dict[str, Tree]) -> Any:
    """The value of a node's `name` key, or None."""
    name = node.get("name")
    return name.value if isinstance(name, Leaf) else None


def merge(
    under: dict[str, Tree],
    over: dict[str, Tree],
    *,
    name_of: NameOf = own_name,
    keys_of: KeysOf | None = None,
    top_level: bool = False,
) -> dict[str, Tree]:
    """`over` on top of `under`: mappings merge, all else replaces; a changed name drops what was below it.

    A `base` that brings another name drops it too, but for the settings that the new noun has as well.
    keys_of: the settings of the noun that a node's `base` includes.
    """
    if not top_level and renames(under, over, name_of):
        return over
    merged = dict(under)
    if not top_level and keys_of is not None and swaps(under, over, name_of):
        shared = {*keys_of(over), "base"} - {"name"}
        merged = {key: value for key, value in under.items() if key in shared}
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            merged[key] = merge(below, value, name_of=name_of, keys_of=keys_of)
        else:
            merged[key] = value
    return merged


def renames(under: dict[str, Tree], over: dict[str, Tree], name_of: NameOf = own_name) -> bool:
    """True when `over` names another factory than `under`: the old arguments mean nothing to the new one."""
    new = own_name(over)
    old = name_of(under) if new is not None else None
    return old is not None and old != new


def swaps(under: dict[str, Tree], over: dict[str, Tree], name_of: NameOf) -> bool:
    """True when the `base` of `over` brings another factory than `under` names."""
    if "base" not in over or own_name(over) is not None:
        return False
    old, new = name_of(under), name_of(over)
    return old is not None and new is not None and old != new


def assigned(
    node: Tree | None,
    parts: list[str],
    value: Tree,
    *,
    name_of: NameOf,
    label: str,
    depth: int = 0,
    keys_of: KeysOf | None = None,
) -> Tree:
    """The node with a dotted key set, sections made on the way. label: names the setting in errors."""
    if not parts:
        both = isinstance(node, dict) and isinstance(value, dict)
        return merge(node, value, name_of=name_of, keys_of=keys_of) if both else value  # type: ignore[arg-type]
    head, rest = parts[0], parts[1:]
    if isinstance(node, list):
        if not head.isdigit() or int(head) >= len(node):
            raise RecipeError(
                f"{label}: {head!r} is not one of the {len(node)} items of this list, counted from 0"
            )
        items = list(node)
        items[int(head)] = assigned(
            items[int(head)], rest, value, name_of=name_of, keys_of=keys_of, label=label, depth=depth + 1
        )
        return items
    if isinstance(node, Leaf) and node.value not in (None, MISSING):
        raise RecipeError(f"{label}: {node.value!r} has no keys below it")
    section = node if isinstance(node, dict) else {}
    if depth and head == "name" and not rest and renames(section, {"name": value}, name_of):
        return {"name": value}
    if depth and head == "base" and not rest and keys_of is not None:
        return merge(section, {"base": value}, name_of=name_of, keys_of=keys_of)
    below = assigned(
        section.get(head), rest, value, name_of=name_of, keys_of=keys_of, label=label, depth=depth + 1
    )
    return {**section, head: below}


def tree_of(data: Any, origins: Mapping[str, str], *, default: str, key: str = "") -> Any:
    """Plain data to a tree; origins: dotted key -> where it came from."""
    if isinstance(data, Mapping):
        return {
            k: tree_of(v, origins, default=default, key=f"{key}.{k}" if key else str(k))
            for k, v in data.items()
        }
    if isinstance(data, (list, tuple)):
        return [tree_of(v, origins, default=default, key=f"{key}.{i}") for i, v in enumerate(data)]
    return Leaf(data, origins.get(key, default))


def plain(tree: Tree) -> Any:
    """A tree as nested dicts, lists and scalars."""
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [plain(value) for value in tree]
    return tree.value


def leaf_origins(tree: Tree, key: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, origin) of every scalar."""
    if isinstance(tree, Leaf):
        yield key, tree.origin
        return
    for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield from leaf_origins(value, f"{key}.{name}" if key else str(name))


def flatten(data: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and scalars of plain data, list items by index; an empty container counts as a value."""
    if not data or not isinstance(data, (Mapping, list)):
        yield prefix, data
        return
    for key, value in data.items() if isinstance(data, Mapping) else enumerate(data):
        yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
