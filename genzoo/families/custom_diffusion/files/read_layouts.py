"""Other projects' concept files: the two official deltas, and diffusers' attention processors with tokens.

Every reader takes the tree of a file that nothing in was run (see `genzoo.pretrained.loading`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from genzoo.core.errors import CheckpointError, WeightsError
from genzoo.families.custom_diffusion.files.concept import ConceptDelta, own_record, read_own
from genzoo.families.custom_diffusion.files.token_files import read_token_files
from genzoo.families.custom_diffusion.files.weight_names import (
    from_compvis,
    from_processor,
    is_compvis,
    is_cross_attention,
    is_key_value,
    is_processor,
    unet_name,
)
from genzoo.families.custom_diffusion.merge.low_rank import Factors
from genzoo.pretrained.hub_runs import here
from genzoo.pretrained.loading import load_foreign
from genzoo.pretrained.state_dicts import MAX_NESTING, the_one

PROCESSOR_FILES = ("pytorch_custom_diffusion_weights.safetensors", "pytorch_custom_diffusion_weights.bin")
OWN_FILE = "concept.safetensors"


def read_concept(path: str | Path) -> ConceptDelta:
    """A concept from any of the layouts, recognised by content; compressed ones as well.

    path: a file, or a folder with diffusers' attention processors beside token files, or with our
    concept.safetensors; or hf://user/repo. Raises WeightsError, CheckpointError.
    """
    path = here(path)
    if path.is_dir():
        return _read_folder(path)
    if path.is_file() and (record := own_record(path)) is not None:
        return read_own(path, record)
    concept = _located(path, load_foreign(path))
    if path.name in PROCESSOR_FILES:  # its words lie beside it
        return replace(concept, tokens=read_token_files(path.parent, PROCESSOR_FILES))
    return concept


def _read_folder(folder: Path) -> ConceptDelta:
    if (folder / OWN_FILE).is_file():
        return read_concept(folder / OWN_FILE)
    for name in PROCESSOR_FILES:
        if (folder / name).is_file():
            return read_concept(folder / name)
    raise WeightsError(
        "the folder holds no concept",
        where=str(folder),
        why=f"neither {OWN_FILE} nor {PROCESSOR_FILES[0]} or .bin",
        fix="name the concept's file itself",
    )


def _located(path: Path, tree: Mapping[str, Any]) -> ConceptDelta:
    """A foreign tree as a concept, wherever in it that lies; errors say which file."""
    try:
        found = the_one([(place, make) for place, make in _concepts_in(tree, str(path))])
    except WeightsError as error:
        raise CheckpointError(error.what, where=str(path), why=error.why, fix="keep one of them") from error
    if found is not None:
        return found()
    raise CheckpointError(
        f"{path.name} is no Custom Diffusion concept",
        where=str(path),
        why=f"its entries begin {', '.join(map(repr, list(tree)[:3]))}",
        fix="expected a genzoo concept, an official delta, or diffusers' pytorch_custom_diffusion_weights",
    )


def _concepts_in(
    tree: Mapping[str, Any], where: str, path: str = "", depth: int = MAX_NESTING
) -> Iterator[tuple[str, Callable[[], ConceptDelta]]]:
    """(dotted place, reader) of what looks like a concept; what lies inside one is a part of it."""
    inside = tree.get("unet")
    if isinstance(inside, Mapping) and not any(is_compvis(n) or is_processor(n) for n in inside):
        yield path, partial(from_official, tree, where)
    elif any(map(is_compvis, tree)):
        yield path, partial(from_compvis_delta, tree, where)
    elif any(map(is_processor, tree)):
        yield path, partial(from_processors, tree, where)
    elif depth:
        for name, below in tree.items():
            if isinstance(below, Mapping):
                yield from _concepts_in(below, where, f"{path}.{name}".lstrip("."), depth - 1)


def _renamed(entries: Mapping[str, Any], rename: Callable[[str], str | None], where: str) -> dict[str, Any]:
    """Entries by our names. Raises CheckpointError for two names of one weight."""
    named: dict[str, Any] = {}
    for name, value in entries.items():
        ours = rename(name) or name
        if ours in named:
            raise CheckpointError(f"the file holds {ours} twice", where=where, why=f"once as {name!r}")
        named[ours] = value
    return named


def from_official(tree: Mapping[str, Any], where: str) -> ConceptDelta:
    """{"unet": {name: W or {"u", "v"}}, "modifier_token": {token: row, or one row per encoder}}."""
    for name in ("text_encoder", "text_encoder_2"):
        if tree.get(name):
            raise WeightsError(
                "this concept retrained the text encoder as well",
                where=where,
                why=f"it holds {name}",
                fix="train the concept again without --train_text_encoder",
            )
    weights, factors = _split(_renamed(tree["unet"], unet_name, where), where)
    tokens = {
        str(token): [value] if isinstance(value, Tensor) else list(value)
        for token, value in (tree.get("modifier_token") or {}).items()
    }
    return ConceptDelta(weights=weights, factors=factors, tokens=tokens)


def from_compvis_delta(entries: Mapping[str, Any], where: str) -> ConceptDelta:
    """{"model.diffusion_model...": W or {"u", "v"}, "embed": (n_new, d)}; tokens become <new1>, ..."""
    named = _renamed({n: value for n, value in entries.items() if is_compvis(n)}, from_compvis, where)
    embed = next((name for name in entries if name.rpartition(".")[2] == "embed"), "embed")
    others = [name for name in entries if not is_compvis(name) and name != embed]
    if others:
        raise CheckpointError("the file holds more than a concept", where=where, why=f"such as {others[0]!r}")
    weights, factors = _split(named, where)
    rows: Sequence[Tensor] = ()
    if embed in entries:
        width = next(v for n, v in _widths(weights, factors) if is_key_value(n))
        rows = list(entries[embed].reshape(-1, width))
    tokens = {f"<new{index}>": [row] for index, row in enumerate(rows, 1)}
    return ConceptDelta(weights=weights, factors=factors, tokens=tokens)


def from_processors(entries: Mapping[str, Any], where: str) -> ConceptDelta:
    """X.attn2.processor.to_k_custom_diffusion.weight; the empty entries of self-attention say nothing."""
    # processors of self-attention are there and say nothing
    full = {name: value for name, value in entries.items() if not (isinstance(value, Mapping) and not value)}
    strange = [name for name in full if not is_processor(name)]
    if strange:
        raise CheckpointError(
            "the file holds more than attention processors", where=where, why=repr(strange[0])
        )
    return ConceptDelta(weights=_renamed(full, from_processor, where))


def _split(entries: Mapping[str, Any], where: str) -> tuple[dict[str, Tensor], dict[str, Factors]]:
    """Full and compressed weights, told apart by what they are."""
    weights, factors = {}, {}
    for name, value in entries.items():
        if not is_cross_attention(name):
            raise CheckpointError(
                "the file holds weights outside cross-attention", where=where, why=repr(name)
            )
        if isinstance(value, Tensor):
            weights[name] = value
        elif isinstance(value, Mapping) and {"u", "v"} <= value.keys():
            factors[name] = (value["u"], value["v"])
        else:
            raise CheckpointError(f"{name} is neither a matrix nor its factors u and v", where=where)
    return weights, factors


def _widths(weights: Mapping[str, Tensor], factors: Mapping[str, Factors]) -> list[tuple[str, int]]:
    full = [(name, weight.shape[-1]) for name, weight in weights.items()]
    return full + [(name, v.shape[1]) for name, (_, v) in factors.items()]
