"""Rows of texts of a base whose transformer reads them by cross-attention: its text encoders, and what of the
transformer stands before keys and values. Nothing else of it is loaded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.errors import CheckpointError, UsageError
from genzoo.core.reading import read_json
from genzoo.core.tensor_files import open_tensors
from genzoo.families.custom_diffusion.edit.attention_models import (
    Text,
    layer_norm_of,
    padding_rows,
    reader_of,
    reads_before,
)
from genzoo.families.custom_diffusion.edit.place import Group, Kept
from genzoo.families.custom_diffusion.edit.rows import names_one_of
from genzoo.families.custom_diffusion.files.base_weights import part_of
from genzoo.pretrained.hub import resolve
from genzoo.pretrained.pipeline_text import EncodedText, PipelineText, empty_model

OWN_NORM = "LuminaNextDiT2DModel"


def transformer_class(base: str | Path) -> str:
    """The name of the transformer's class in diffusers."""
    return str(_config(base).get("_class_name"))


def check_model(base: str | Path) -> None:
    """Raise UsageError, with the reason, for a base whose keys and values of the text have no closed form."""
    if part_of(base) == "transformer":
        reader_of(transformer_class(base))


class TransformerTexts:
    """Rows of texts as they enter keys and values, each text encoded once; float64."""

    def __init__(self, base: str | Path, files: Sequence[Path]) -> None:
        config = _config(base)
        self.kind = str(config.get("_class_name"))
        self._reader = reader_of(self.kind)
        self._model = _before_keys(config, self.kind, files)
        self.encoder = PipelineText(base)
        padding = padding_rows(self._model)
        self.padding = None if padding is None else padding.double()

    def groups(self, names: Sequence[str]) -> list[Group]:
        """Projections that see the same rows: all, or of Lumina-Next those of each layer."""
        if self.kind != OWN_NORM:
            return [Group(tuple(names))]
        layers: dict[str, list[str]] = {}
        for name in names:
            layers.setdefault(name.partition(".attn2")[0], []).append(name)
        return [Group(tuple(own), _normed(self._model, own[0])) for own in layers.values()]

    def paired(self, texts: Sequence[str], which: str) -> list[Tensor]:
        """Rows (s, d) of each text, s those of the first, that stand for each other.

        last: the last token of the words.   tail: that and the end token, where the text has one.   all:
        every token, ends aligned. Of a text that is shorter its last row, or with "all" its first, is
        repeated.
        """
        found = [self.whole(text) for text in texts]
        chosen: list[list[Tensor]] = [[] for _ in texts]
        for number in range(len(found[0])):
            sequences = [self.sequences(parts)[number] for parts in found]
            ends = [parts[number].ends for parts in found]
            for own, rows in zip(chosen, _aligned(sequences, ends, which), strict=True):
                own.append(rows)
        return [torch.cat(own) for own in chosen]

    def whole(self, text: str) -> list[EncodedText]:
        """A text's sequences. Raises UsageError for one that is cut off."""
        parts = self.encoder.read(text)
        if any(part.length and len(part.rows) >= part.length for part in parts):
            raise UsageError(
                f"the text {text[:48]!r} is too long for an edit or a merge",
                why=f"the text encoder reads {parts[0].length} tokens",
                fix="name the thing in a few words",
            )
        return parts

    def kept(self, captions: Sequence[str], sources: Sequence[str], explicit: Sequence[str] = ()) -> Kept:
        """Every row of captions that name no source, of the empty text, and of the padding that is seen."""
        left_out = [caption for caption in captions if names_one_of(caption, sources)]
        used = [*explicit, *(caption for caption in captions if caption not in left_out)]
        places: dict[bytes, int] = {}
        rows: list[Tensor] = []
        counts: Counter[int] = Counter()
        spans = []
        for text in [*used, ""]:
            own = torch.cat(self.sequences(self.encoder.read(text)))
            keys = [row.numpy().tobytes() for row in own]
            for key, row in zip(keys, own, strict=True):
                if key not in places:
                    places[key] = len(rows)
                    rows.append(row)
            spans.append(sorted({places[key] for key in keys}))
            counts.update(spans[-1])
        weights = [float(counts[place]) for place in range(len(rows))]
        found = torch.stack(rows)
        if self.padding is not None:
            found = torch.cat([found, self.padding])
            weights += [float(max(len(used), 1))] * len(self.padding)
        return Kept(found, torch.tensor(weights, dtype=torch.float64), used, spans[:-1], left_out)

    def notes(self) -> list[str]:
        """What an edit of keys and values does not reach."""
        if self.kind in ("HunyuanDiT2DModel", OWN_NORM):
            return ["the text's mean also reaches the timestep's embedding, and is not edited"]
        return []

    @torch.no_grad()
    def sequences(self, parts: Sequence[EncodedText]) -> list[Tensor]:
        """(l, d) float64 of each sequence, behind what the transformer puts before keys and values."""
        rows = self._reader(self._model, Text(tuple(part.rows.double() for part in parts)))
        return list(rows.double().split([len(part.rows) for part in parts]))


def _aligned(sequences: Sequence[Tensor], ends: Sequence[bool], which: str) -> list[Tensor]:
    """The chosen rows of each, as many as the first has."""
    if which == "all":
        count = len(sequences[0])
        return [rows[(torch.arange(count) + len(rows) - count).clamp_min(0)] for rows in sequences]
    starts = [max(0, len(rows) - 1 - end) for rows, end in zip(sequences, ends, strict=True)]
    count = 1 if which == "last" else len(sequences[0]) - starts[0]
    return [
        rows[(start + torch.arange(count)).clamp_max(len(rows) - 1)]
        for rows, start in zip(sequences, starts, strict=True)
    ]


def _config(base: str | Path) -> dict[str, Any]:
    path = resolve(base, "config.json", subfolder="transformer")
    config = read_json(path, error=CheckpointError)
    if not isinstance(config, dict):
        raise CheckpointError("the transformer's config.json does not hold an object", where=str(path))
    return config


def _before_keys(config: dict[str, Any], kind: str, files: Sequence[Path]) -> nn.Module:
    """A model with weights where text passes and none elsewhere, in float64."""
    found = {}
    for path in files:
        with open_tensors(path, "the base's weights") as file:
            names = [name for name in file.keys() if reads_before(name)]  # noqa: SIM118
            found.update({name: file.get_tensor(name).double() for name in names})
    model = empty_model(kind, config)
    wrong = model.load_state_dict(found, strict=False, assign=True)
    absent = [name for name in wrong.missing_keys if reads_before(name)]
    if absent or wrong.unexpected_keys:
        raise CheckpointError(
            "the transformer's weights do not fit its config",
            why=f"{len(absent)} are absent, {len(wrong.unexpected_keys)} unknown, such as "
            f"{[*absent, *wrong.unexpected_keys][0]}",
        )
    return model.eval().requires_grad_(False)


def _normed(model: nn.Module, name: str) -> Any:
    norm = layer_norm_of(model, name.removesuffix(".weight"))

    @torch.no_grad()
    def apply(rows: Tensor) -> Tensor:
        return norm(rows).double()

    return apply
