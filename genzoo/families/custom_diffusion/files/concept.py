"""A taught concept: cross-attention weights and token embeddings, with where they came from.

The file of our own is one safetensors file: `unet.<name>` for a full matrix, `unet.<name>.u` and `.v` for a
compressed one, `text_encoder.tokens` and `text_encoder_2.tokens` (n_new, d) for the embeddings, and one JSON
record under "genzoo" in its metadata.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genzoo.core.errors import CheckpointError, NonFiniteError, WeightsError
from genzoo.core.tensor_files import look
from genzoo.core.tensor_layout import tensor_bytes
from genzoo.families.custom_diffusion.files.weight_names import is_cross_attention, is_key_value, is_of_unet
from genzoo.families.custom_diffusion.merge.low_rank import Factors, compress_weights
from genzoo.pretrained.loading import load_foreign

FORMAT, VERSION = "genzoo-concept", 1


@dataclass(frozen=True)
class ConceptDelta:
    """weights: full matrices by their names in a diffusers UNet or transformer.   factors: (u, v) of those
    stored as W_0 + u v.   tokens: per modifier token, one embedding row (d,) for each text encoder.

    phrases: what the concept is called in a prompt, such as "<new1> cat".   base_fingerprint: of the key and
    value projections it was trained from; None when the file does not say.   notes: free-form, kept in files.
    """

    weights: Mapping[str, Tensor] = field(default_factory=dict)
    tokens: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)
    factors: Mapping[str, Factors] = field(default_factory=dict)
    phrases: tuple[str, ...] = ()
    base_model: str | None = None
    base_fingerprint: str | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        strange = [name for name in self.names if not is_cross_attention(name)]
        if strange or not any(map(is_key_value, self.names)):
            raise CheckpointError(
                "this is no Custom Diffusion concept",
                why=f"it holds {strange[0]!r}" if strange else "it has no attn2.to_k or to_v weights",
            )
        for token in self.tokens:
            if not token or any(c in "/\\" or c.isspace() or not c.isprintable() for c in token):
                raise CheckpointError(f"{token!r} cannot be a modifier token", fix="a word such as <new1>")
        for name, value in self.named_tensors():
            if not bool(torch.isfinite(value).all()):
                raise NonFiniteError(
                    f"{name} of the concept has NaN or infinite entries",
                    fix="its training diverged or the file is damaged: train it again",
                )

    @property
    def names(self) -> list[str]:
        """Every cross-attention weight it replaces."""
        return [*self.weights, *self.factors]

    @property
    def freeze_mode(self) -> str:
        """crossattn_kv, or crossattn when queries and outputs were trained as well."""
        return "crossattn_kv" if all(map(is_key_value, self.names)) else "crossattn"

    @property
    def part(self) -> str:
        """Of a pipeline, which it changes: unet or transformer."""
        return "unet" if all(map(is_of_unet, self.names)) else "transformer"

    @property
    def width(self) -> int:
        """Of the text features: 768 for SD 1, 1024 for SD 2, 2048 for SDXL."""
        name = next(name for name in self.names if is_key_value(name))
        weight = self.weights[name] if name in self.weights else self.factors[name][1]
        return weight.shape[1]

    def named_tensors(self) -> list[tuple[str, Tensor]]:
        """Every tensor with the name it has in our file."""
        found = [(f"unet.{name}", weight) for name, weight in self.weights.items()]
        for name, (u, v) in self.factors.items():
            found += [(f"unet.{name}.u", u), (f"unet.{name}.v", v)]
        for index, encoder in enumerate(_encoder_names(self.tokens)):
            found.append((f"{encoder}.tokens", torch.stack([rows[index] for rows in self.tokens.values()])))
        return found

    def full_weight(self, name: str, base: Tensor) -> Tensor:
        """The weight that replaces `base` (of the same name); a compressed one is added to it in float32."""
        if name in self.weights:
            return self.weights[name]
        u, v = self.factors[name]
        return base.float() + u.float() @ v.float()

    def expanded(self, base: Mapping[str, Tensor]) -> ConceptDelta:
        """The same concept with full matrices only."""
        full = {name: self.full_weight(name, base[name]) for name in self.factors}
        return dataclasses.replace(self, weights={**self.weights, **full}, factors={})

    def compressed(
        self, base: Mapping[str, Tensor], *, keep: float = 0.6, rank: int | None = None, measure: str = "sum"
    ) -> ConceptDelta:
        """The same concept with low-rank keys and values; queries and outputs stay as they are.

        keep, rank, measure: as in `compress_change`.
        """
        whole = self.expanded(base)
        small = {name: weight for name, weight in whole.weights.items() if is_key_value(name)}
        rest = {name: weight for name, weight in whole.weights.items() if name not in small}
        factors = compress_weights(small, base, keep=keep, rank=rank, measure=measure)
        return dataclasses.replace(whole, weights=rest, factors=factors)

    def renamed(self, tokens: Mapping[str, str]) -> ConceptDelta:
        """The same concept under other token names, in its phrases too."""
        new = {tokens.get(name, name): rows for name, rows in self.tokens.items()}
        phrases = tuple(
            " ".join(tokens.get(word, word) for word in phrase.split()) for phrase in self.phrases
        )
        return dataclasses.replace(self, tokens=new, phrases=phrases)


def _encoder_names(tokens: Mapping[str, Sequence[Tensor]]) -> list[str]:
    counts = {len(rows) for rows in tokens.values()}
    if len(counts) > 1 or any(count > 2 for count in counts):
        raise CheckpointError("the tokens of the concept belong to different numbers of text encoders")
    return ["text_encoder", "text_encoder_2"][: counts.pop() if counts else 0]


def concept_bytes(delta: ConceptDelta, *, dtype: torch.dtype | None = None) -> bytes:
    """Our file's content. dtype: of every tensor; as they are when left out."""
    record = {
        "format": FORMAT,
        "version": VERSION,
        "tokens": list(delta.tokens),
        "phrases": list(delta.phrases),
        "base_model": delta.base_model,
        "base_fingerprint": delta.base_fingerprint,
        "freeze_mode": delta.freeze_mode,
        "width": delta.width,
        "notes": dict(delta.notes),
    }
    tensors = {
        name: value.detach().to("cpu", dtype or value.dtype).contiguous().clone()
        for name, value in delta.named_tensors()
    }
    return tensor_bytes(tensors, {"genzoo": json.dumps(record, sort_keys=True)})


def own_record(path: Path) -> dict[str, Any] | None:
    """The JSON record of our file, or None when the file is not ours."""
    # not safetensors, or damaged: the reader of the tensors says which
    record = look(path, lambda file: json.loads((file.metadata() or {}).get("genzoo") or "null"))
    return record if isinstance(record, dict) and record.get("format") == FORMAT else None


def read_own(path: Path, record: Mapping[str, Any]) -> ConceptDelta:
    """Our file, with its record already read. Raises CheckpointError."""
    if record.get("version") != VERSION:
        raise CheckpointError(
            f"{path.name} has version {record.get('version')} of the concept format",
            where=str(path),
            fix="use a newer genzoo",
        )
    tensors = load_foreign(path)
    weights, factors, rows = {}, {}, []
    for key, value in tensors.items():
        name = key.removeprefix("unet.")
        if key.endswith(".tokens"):
            rows.append((key, value))
        elif name.endswith(".u"):
            factors[name[:-2]] = (value, _partner(tensors, key, path))
        elif not name.endswith(".v"):
            weights[name] = value
    tokens = list(record.get("tokens") or [])
    by_encoder = [value for _, value in sorted(rows)]
    if any(len(value) != len(tokens) for value in by_encoder):
        raise CheckpointError(
            f"{path.name} names {len(tokens)} tokens but holds other numbers of embeddings", where=str(path)
        )
    return ConceptDelta(
        weights=weights,
        factors=factors,
        tokens={token: [value[i] for value in by_encoder] for i, token in enumerate(tokens)},
        phrases=tuple(record.get("phrases") or ()),
        base_model=record.get("base_model"),
        base_fingerprint=record.get("base_fingerprint"),
        notes=dict(record.get("notes") or {}),
    )


def _partner(tensors: Mapping[str, Tensor], key: str, path: Path) -> Tensor:
    other = f"{key[:-2]}.v"
    if other not in tensors:
        raise WeightsError(f"{path.name} has {key} but no {other}", where=str(path))
    return tensors[other]
