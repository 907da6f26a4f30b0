"""State dicts as files hold them: nested in training states, their names under those of wrappers.

DistributedDataParallel, torch.compile, FSDP, Lightning and averages of weights all put names of their own
before those of the model, in any order. Whoever knows some names of a model finds it here wherever it lies.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from genzoo.core.errors import WeightsError, did_you_mean

# left wherever a module was wrapped; no model of anybody's has such a part
WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
AVERAGED = re.compile(r"(^|[._])ema($|[._\d])|shadow|averag|polyak|(^|[._])swa($|[._])", re.IGNORECASE)
MAX_NESTING = 4

Found = TypeVar("Found")


@dataclass(frozen=True)
class Part:
    """One state dict of a file.

    path: its dotted place there, empty for the file itself.   weights: by the model's own names.   names:
    from those to the file's.
    """

    path: str
    weights: dict[str, Tensor]
    names: dict[str, str]


def find_part(tree: Mapping[str, Any], signature: Collection[str], *, share: float = 1.0) -> Part | None:
    """The state dict that has these names; of several the averaged one. Raises WeightsError naming them all.

    share: of the names that have to be there.
    """
    parts = find_parts(tree, signature, share=share)
    best = max((_matches(part, signature) for part in parts), default=0)
    found = _distinct([part for part in parts if _matches(part, signature) == best])
    return the_one([(part.path, part) for part in found])


def the_one(found: Sequence[tuple[str, Found]]) -> Found | None:
    """What lies at the only place, or at the only place of averaged weights; None where there is nothing.

    found: (dotted place in the file, what lies there). Raises WeightsError with the places.
    """
    averaged = [one for one in found if AVERAGED.search(one[0])]
    if len(found) <= 1 or len(averaged) == 1:
        return next((one for _, one in averaged or found), None)
    places = [path or "the file's own tensors" for path, _ in found]
    raise WeightsError(
        f"the file holds {len(found)} sets of such weights, and does not tell which are meant",
        why=f"they are {', '.join(places)}",
        fix="name one, as in `genzoo convert FILE OUT --argument part=NAME`; or save it as a file of its own",
    )


def find_parts(tree: Mapping[str, Any], signature: Collection[str], *, share: float = 1.0) -> list[Part]:
    """Every state dict with that share of these names, outermost first, under any prefix of its names."""
    wanted, least = set(signature), share * len(signature)
    found = []
    for path, tensors in groups(tree):
        bare = {without_wrappers(name): name for name in tensors}
        counts: dict[str, int] = {}
        for name in bare:
            for prefix, rest in _splits(name):
                counts[prefix] = counts.get(prefix, 0) + (rest in wanted)
        prefixes = [prefix for prefix, count in counts.items() if count and count >= least]
        for prefix in prefixes:
            deeper = tuple(other for other in prefixes if other.startswith(prefix) and other != prefix)
            own = [n for n in bare if n.startswith(prefix) and not (deeper and n.startswith(deeper))]
            ours = [n.removeprefix(prefix) for n in own]
            theirs = placed(path, [bare[n] for n in own])
            weights = [tensors[bare[n]] for n in own]
            (place,) = placed(path, [prefix.rstrip(".")])
            found.append(
                Part(place, dict(zip(ours, weights, strict=True)), dict(zip(ours, theirs, strict=True)))
            )
    return found


def groups(
    tree: Mapping[str, Any], path: str = "", depth: int = MAX_NESTING
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """(dotted place, tensors) of every dict in a file that holds some, outermost first."""
    tensors = {name: value for name, value in tree.items() if isinstance(value, Tensor)}
    if tensors:
        yield path, tensors
    for name, value in tree.items():
        if isinstance(value, Mapping) and depth:
            yield from groups(value, f"{path}.{name}".lstrip("."), depth - 1)


def placed(path: str, names: Iterable[str]) -> list[str]:
    """Names below a place of a file, dotted."""
    return [".".join(part for part in (path, name) if part) for name in names]


def narrowed(tree: Mapping[str, Any], part: str) -> dict[str, Any]:
    """A training state with one of its state dicts alone. Raises WeightsError when there is none there.

    part: as `Part.path` has it.
    """
    for path, tensors in groups(tree):
        prefix = "" if path == part else f"{part.removeprefix(f'{path}.')}."
        if path == part or not path or part.startswith(f"{path}."):
            kept = {
                name: value for name, value in tensors.items() if without_wrappers(name).startswith(prefix)
            }
            if kept:
                return {**({"args": tree["args"]} if "args" in tree else {}), part: kept}
    known = [path for path, _ in groups(tree) if path]
    hint = did_you_mean(part, known) or f"there are {', '.join(known) or 'no parts'}"
    raise WeightsError(f"the file has no part {part!r}", fix=hint)


def without_wrappers(name: str) -> str:
    """A name without what torch.compile, FSDP and the like leave in it, wherever it stands."""
    return ".".join(word for word in name.split(".") if word not in WRAPPERS)


def unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors without what wrappers left in their names, where nobody can say what the names should be."""
    plain = {without_wrappers(name): value for name, value in tensors.items()}
    while plain and all(name.startswith("module.") for name in plain):
        plain = {name.removeprefix("module."): value for name, value in plain.items()}
    return plain


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """A dotted name cut into prefix and rest, the empty prefix first."""
    yield "", name
    for match in re.finditer(r"\.", name):
        yield name[: match.end()], name[match.end() :]


def _matches(part: Part, signature: Collection[str]) -> int:
    return sum(name in part.weights for name in signature)


def _distinct(parts: list[Part]) -> list[Part]:
    """The parts without those that repeat the tensors of another."""
    kept: list[Part] = []
    for part in parts:
        if not any(_same(part.weights, other.weights) for other in kept):
            kept.append(part)
    return kept


def _same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        value is second[name] or (not value.is_meta and torch.equal(value, second[name].to(value.dtype)))
        for name, value in first.items()
    )
