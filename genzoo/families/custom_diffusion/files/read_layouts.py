"""Other projects' concept files: the two official deltas, and diffusers' attention processors with tokens.

Every reader takes the tree of a file that nothing in was run (see `genzoo.pretrained.loading`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from genzoo.core.errors import CheckpointError, WeightsError
from genzoo.families.custom_diffusion.files.concept import ConceptDelta, own_record, read_own
from genzoo.families.custom_diffusion.files.weight_names import (
    COMPVIS_PREFIX,
    from_compvis,
    from_processor,
    is_cross_attention,
    is_key_value,
)
from genzoo.families.custom_diffusion.merge.low_rank import Factors
from genzoo.pretrained.loading import load_foreign

PROCESSOR_FILES = ("pytorch_custom_diffusion_weights.safetensors", "pytorch_custom_diffusion_weights.bin")
OWN_FILE = "concept.safetensors"


def read_concept(path: str | Path) -> ConceptDelta:
    """A concept from any of the layouts, recognised by content; compressed ones as well.

    path: a file, or a folder with diffusers' attention processors beside token files, or with our
    concept.safetensors. Raises WeightsError, CheckpointError.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if path.is_file() and (record := own_record(path)) is not None:
        return read_own(path, record)
    return _located(path, load_foreign(path))


def _read_folder(folder: Path) -> ConceptDelta:
    if (folder / OWN_FILE).is_file():
        return read_concept(folder / OWN_FILE)
    for name in PROCESSOR_FILES:
        if (folder / name).is_file():
            concept = _located(folder / name, load_foreign(folder / name))
            return ConceptDelta(weights=concept.weights, tokens=_read_token_files(folder))
    raise WeightsError(
        "the folder holds no concept",
        where=str(folder),
        why=f"neither {OWN_FILE} nor {PROCESSOR_FILES[0]} or .bin",
        fix="name the concept's file itself",
    )


def _read_token_files(folder: Path) -> dict[str, list[Tensor]]:
    """<new1>.bin, <new1>.safetensors: one token each, as diffusers' trainer writes them."""
    tokens = {}
    for path in sorted(folder.glob("<*>.*")):
        if path.suffix not in (".bin", ".safetensors") or path.stem in tokens:
            continue
        tree = load_foreign(path)
        if path.stem in tree:
            tokens[path.stem] = [tree[path.stem]]
        elif {"clip_l", "clip_g"} <= tree.keys():
            tokens[path.stem] = [tree["clip_l"].reshape(-1), tree["clip_g"].reshape(-1)]
        else:
            raise CheckpointError(f"{path.name} has no embedding of {path.stem}", where=str(path))
    return tokens


def _located(path: Path, tree: Mapping[str, Any]) -> ConceptDelta:
    """A foreign tree as a concept; errors say which file."""
    if isinstance(tree.get("unet"), Mapping):
        return from_official(tree, str(path))
    entries = tree["state_dict"] if isinstance(tree.get("state_dict"), Mapping) else tree
    if any(str(name).startswith(COMPVIS_PREFIX) for name in entries):
        return from_compvis_delta(entries, str(path))
    if any(from_processor(name) for name in entries):
        return from_processors(entries, str(path))
    raise CheckpointError(
        f"{path.name} is no Custom Diffusion concept",
        where=str(path),
        why=f"its entries begin {', '.join(map(repr, list(entries)[:3]))}",
        fix="expected a genzoo concept, an official delta, or diffusers' pytorch_custom_diffusion_weights",
    )


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
    weights, factors = _split(tree["unet"], where)
    tokens = {
        str(token): [value] if isinstance(value, Tensor) else list(value)
        for token, value in (tree.get("modifier_token") or {}).items()
    }
    return ConceptDelta(weights=weights, factors=factors, tokens=tokens)


def from_compvis_delta(entries: Mapping[str, Any], where: str) -> ConceptDelta:
    """{"model.diffusion_model...": W or {"u", "v"}, "embed": (n_new, d)}; tokens become <new1>, ..."""
    named = {from_compvis(name): value for name, value in entries.items() if name.startswith(COMPVIS_PREFIX)}
    others = [name for name in entries if not name.startswith(COMPVIS_PREFIX) and name != "embed"]
    if others:
        raise CheckpointError("the file holds more than a concept", where=where, why=f"such as {others[0]!r}")
    weights, factors = _split(named, where)
    rows: Sequence[Tensor] = ()
    if "embed" in entries:
        width = next(v for n, v in _widths(weights, factors) if is_key_value(n))
        rows = list(entries["embed"].reshape(-1, width))
    tokens = {f"<new{index}>": [row] for index, row in enumerate(rows, 1)}
    return ConceptDelta(weights=weights, factors=factors, tokens=tokens)


def from_processors(entries: Mapping[str, Any], where: str) -> ConceptDelta:
    """X.attn2.processor.to_k_custom_diffusion.weight; the empty entries of self-attention say nothing."""
    weights = {}
    for name, value in entries.items():
        ours = from_processor(name)
        if ours is not None:
            weights[ours] = value
        elif not (isinstance(value, Mapping) and not value):
            raise CheckpointError(
                "the file holds more than attention processors", where=where, why=repr(name)
            )
    return ConceptDelta(weights=weights)


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
