"""Recipes: `base:` includes, dotted overrides, the origin of every value. Pure data: nothing is imported."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genzoo.core.errors import RecipeError
from genzoo.core.recipe_source import display, find_include, find_recipe, inside, roots
from genzoo.core.recipe_text import MAX_VALUES, parse_value, read_tree
from genzoo.core.recipe_tree import (
    MISSING as MISSING,
)
from genzoo.core.recipe_tree import (
    Leaf,
    Tree,
    assigned,
    flatten,
    leaf_origins,
    merge,
    own_name,
    plain,
    tree_of,
)

MAX_INCLUDES = 64
NOUNS = {
    **{"model": "models", "data": "data", "codec": "codecs", "sampler": "samplers", "optim": "optim"},
    "task.loss": "losses",
}
"""Sections that may be given by a name alone in overrides, and where their nouns lie below configs/."""
_KEY = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*")
_NAME = re.compile(r"[A-Za-z_][\w./-]*")


@dataclass(frozen=True)
class Recipe:
    """A fully expanded recipe. data: nested dicts and lists. origins: dotted key -> file or override."""

    data: Mapping[str, Any]
    source: str
    origins: Mapping[str, str] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The run's name: the `name` key, or the file's own name."""
        return str(self.data.get("name") or Path(self.source).stem)

    @property
    def sha256(self) -> str:
        """Hash of the content, blind to the order of keys and to comments."""
        return hashlib.sha256(json.dumps(self.data, sort_keys=True).encode()).hexdigest()

    def section(self, name: str) -> dict[str, Any]:
        """A copy of one top-level mapping; empty when the recipe has none."""
        value = self.data.get(name)
        if value is not None and not isinstance(value, Mapping):
            raise RecipeError(f"{self.origin(name)}: {name}: must be a mapping of settings, not {value!r}")
        return dict(value or {})

    def origin(self, key: str) -> str:
        """The file or override that gave a key, or the nearest key below or above it."""
        if key in self.origins:
            return self.origins[key]
        below = next((origin for known, origin in self.origins.items() if known.startswith(f"{key}.")), None)
        above = key.rpartition(".")[0]
        return below or (self.origin(above) if above else self.source)

    def missing(self) -> list[str]:
        """Dotted keys that still hold `???`: only the user knows them."""
        return [key for key, value in flatten(self.data) if value == MISSING]

    def replaced(self, values: Mapping[str, Any], origin: str) -> Recipe:
        """A copy with dotted keys set, such as arguments that were `auto` and are known now."""
        tree = tree_of(self.data, self.origins, default=self.source)
        for key, value in values.items():
            leaf = tree_of(value, {}, default=origin)
            tree = assigned(tree, key.split("."), leaf, name_of=own_name, label=f"{origin}: {key}")
        return _recipe(tree, self.source, self.overrides)

    def to_yaml(self) -> str:
        """The expanded recipe as text that loads back to the same data."""
        from omegaconf import OmegaConf

        return OmegaConf.to_yaml(OmegaConf.create(dict(self.data)))


def load_recipe(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by path or bare name, apply `key=value` overrides, and expand every `base:`.

    A changed `name` inside a section drops the keys that belonged to the old name. A changed `base` swaps the
    noun: of the section's own keys those stay that the new noun has too, all of them where its name is the
    same. Overrides say it in any order: `task.loss.a=1 task.loss.name=b` is `task.loss.name=b task.loss.a=1`.
    `codec=identity` is a section by name alone. A recipe's `aliases:` maps short names to dotted keys, for
    overrides only. Raises RecipeError.
    """
    if not isinstance(path_or_name, (str, Path)):
        raise RecipeError(
            f"a recipe is a path or a name, not a {type(path_or_name).__name__}",
            fix="of a mapping make one first: genzoo.recipe_from(MAPPING)",
        )
    path = find_recipe(path_or_name)
    includes = _Includes(path)
    chain = includes.chain(path)
    aliases = _aliases(chain.pop("aliases", None), display(path))
    tree: Tree = chain
    for override in _names_first(_unabbreviated(override, aliases) for override in overrides):
        tree = _overridden(tree, override, includes)
    return _recipe(includes.expand(tree, path), display(path), tuple(overrides))


def with_overrides(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """An expanded recipe with "key=value" settings put in place of its own. Raises RecipeError."""
    tree: Tree = tree_of(recipe.data, recipe.origins, default=recipe.source)
    includes = _Includes(Path(recipe.source))
    for override in _names_first(overrides):
        tree = _overridden(tree, override, includes)
    tree = includes.expand(tree, Path(recipe.source)) if overrides else tree
    return _recipe(tree, recipe.source, (*recipe.overrides, *overrides))


def recipe_from(data: Mapping[str, Any], *, source: str = "<python>") -> Recipe:
    """A recipe from a plain mapping that is already expanded, for notebooks and tests."""
    return _recipe(tree_of(data, {}, default=source), source, ())


def load_section(path: Path, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One noun of configs/, such as a model, expanded to plain data with keys replaced."""
    tree = _Includes(path).expand(read_tree(path), path, (path.resolve(),))
    for key, value in (overrides or {}).items():
        leaf = tree_of(value, {}, default="argument")
        tree = assigned(tree, key.split("."), leaf, name_of=own_name, label=f"argument {key}", depth=1)
    return dict(plain(tree))


class _Includes:
    """Follows `base:`; counts files, so that includes cannot multiply without end."""

    def __init__(self, near: Path) -> None:
        self.near = near
        self.read = 0

    def load(self, path: Path, stack: tuple[Path, ...]) -> dict[str, Tree]:
        if path.resolve() in stack:
            raise RecipeError(f"{display(path)}: base: the includes form a circle through this file")
        self.read += 1
        if self.read > MAX_INCLUDES:
            raise RecipeError(f"{display(path)}: base: more than {MAX_INCLUDES} files are included")
        return read_tree(path)

    def chain(self, path: Path, stack: tuple[Path, ...] = ()) -> dict[str, Tree]:
        """A recipe on top of the recipes its top-level `base:` names; bases of sections stay for `expand`."""
        tree = self.load(path, stack)
        merged: dict[str, Tree] = {}
        for name in _bases(tree.pop("base", None), display(path)):
            below = self.chain(find_include(name, including=path, top_level=True), (*stack, path.resolve()))
            merged = merge(merged, below, name_of=self.name_of, keys_of=self.keys_of, top_level=True)
        return merge(merged, tree, name_of=self.name_of, keys_of=self.keys_of, top_level=True)

    def name_of(self, node: dict[str, Tree]) -> Any:
        """The name a node will have: its own, or that of the noun its `base:` includes."""
        name = own_name(node)
        if name is None and "base" in node:
            expanded = self.expand({"base": node["base"]}, self.near)
            name = own_name(expanded) if isinstance(expanded, dict) else None
        return name

    def keys_of(self, node: dict[str, Tree]) -> Collection[str]:
        """The settings of the noun that a node's `base:` includes."""
        expanded = self.expand({"base": node["base"]}, self.near)
        return expanded.keys() if isinstance(expanded, dict) else ()

    def expand(self, node: Tree, near: Path, stack: tuple[Path, ...] = ()) -> Tree:
        """Replace every `base:` below a node by the content of its file, under the node's own keys."""
        if isinstance(node, list):
            return [self.expand(item, near, stack) for item in node]
        if not isinstance(node, dict):
            return node
        own = {key: self.expand(value, near, stack) for key, value in node.items() if key != "base"}
        base = node.get("base")
        merged: dict[str, Tree] = {}
        for name in _bases(base, base.origin if isinstance(base, Leaf) else display(near)):
            path = find_include(name, including=near, top_level=False)
            content = self.expand(self.load(path, stack), path, (*stack, path.resolve()))
            merged = merge(merged, content if isinstance(content, dict) else {})
        return merge(merged, own)


def _bases(node: Tree | None, origin: str) -> list[str]:
    if node is None or (isinstance(node, Leaf) and node.value is None):
        return []
    leaves = node if isinstance(node, list) else [node]
    names = [leaf.value for leaf in leaves if isinstance(leaf, Leaf) and isinstance(leaf.value, str)]
    if len(names) != len(leaves):
        raise RecipeError(f"{origin}: base: must be a path such as models/NAME, or a list of paths")
    return names


def _aliases(node: Tree | None, origin: str) -> dict[str, str]:
    found = {} if node is None else plain(node)
    entries = found.items() if isinstance(found, dict) else [("", None)]
    if not all(_KEY.fullmatch(str(key)) and _KEY.fullmatch(str(value)) for key, value in entries):
        raise RecipeError(f"{origin}: aliases: must map names to dotted keys, such as steps: train.steps")
    return {str(key): str(value) for key, value in entries}


def _unabbreviated(override: str, aliases: Mapping[str, str]) -> str:
    """An override whose first word is an alias, spelt out."""
    key, equals, value = override.partition("=")
    first, dot, rest = key.partition(".")
    return f"{aliases.get(first, first)}{dot}{rest}{equals}{value}"


def _names_first(overrides: Iterable[str]) -> list[str]:
    """The same overrides; what names a section stands before what sets its keys, which it would drop."""
    ordered: list[str] = []
    for override in overrides:
        section = _named_section(override)
        place = len(ordered)
        if section is not None:
            inside = (key.startswith(f"{section}.") and _named_section(key) != section for key in ordered)
            place = next((number for number, is_inside in enumerate(inside) if is_inside), place)
        ordered.insert(place, override)
    return ordered


def _named_section(override: str) -> str | None:
    """The section whose name or noun an override gives: "task" for task.name=dit or task.base=FILE."""
    key, _, value = override.partition("=")
    section, _, last = key.rpartition(".")
    if last in ("name", "base") and section:
        return section
    return key if key in NOUNS and _NAME.fullmatch(value) and value != "null" else None


def _overridden(tree: Tree, text: str, includes: _Includes) -> Tree:
    key, equals, value = text.partition("=")
    if not equals or not _KEY.fullmatch(key):
        raise RecipeError(
            f"override {text[:80]!r} is not of the form key=value", fix="for example train.steps=200"
        )
    label = f"override {key}"
    read = parse_value(value, label)
    if key in NOUNS and isinstance(read, Leaf) and isinstance(read.value, str) and read.value != MISSING:
        read = _noun(key, read, includes.near)
    functions: dict[str, Any] = {"name_of": includes.name_of, "keys_of": includes.keys_of}
    return assigned(tree, key.split("."), read, **functions, label=label)


def _noun(section: str, text: Leaf, near: Path) -> Tree:
    """`codec=identity`: a section by the name of a noun in configs/, or of a registered factory."""
    path = text.value if "/" in text.value else f"{NOUNS[section]}/{text.value}"
    known = any(inside(folder, path) is not None for folder in roots("configs", near))
    return {
        "base" if known or "/" in text.value else "name": Leaf(path if known else text.value, text.origin)
    }


def _recipe(tree: Tree, source: str, overrides: tuple[str, ...]) -> Recipe:
    origins = dict(leaf_origins(tree))
    if len(origins) > MAX_VALUES:
        raise RecipeError(f"{source}: expands to {len(origins)} values; at most {MAX_VALUES} are allowed")
    return Recipe(plain(tree), source, origins, overrides)
