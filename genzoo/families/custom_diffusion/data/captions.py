"""Regularisation captions: sentences whose features a merge leaves alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from genzoo.core.errors import DataError
from genzoo.data.text_files import read_lines
from genzoo.families.custom_diffusion.data.phrases import row_keys
from genzoo.pretrained.prompts import PromptEncoder

NUM_CAPTIONS = 1000
# the paper draws captions from LAION; these name everyday things in everyday sentences
TEMPLATES = (
    "photo of a {}",
    "a {} on a wooden table",
    "a painting of a {} in the garden",
    "the {} by the sea at sunset",
    "close up of a {}",
    "two people looking at a {} in the city",
    "an old {} with snow in the background",
    "black and white drawing of a {}, high quality",
)


def default_captions(num: int = NUM_CAPTIONS) -> list[str]:
    """Sentences about the 1,339 things of the embedded emoji pack, the templates in turn."""
    names = _names()
    return [
        TEMPLATES[(index + index // len(names)) % len(TEMPLATES)].format(_visited(names, index))
        for index in range(num)
    ]


def names_and_sentences(num: int) -> list[str]:
    """Names alone and those sentences in turn: a word that stands alone has other rows than in a sentence."""
    names = _names()
    sentences = default_captions(num)
    return [sentence if index % 2 else _visited(names, index) for index, sentence in enumerate(sentences)]


def _names() -> list[str]:
    from genzoo.data.emoji import load_concepts

    return sorted({concept["name"] for concept in load_concepts()})


def _visited(names: Sequence[str], index: int) -> str:
    # a stride without a common factor visits every name before one returns
    return names[index * 577 % len(names)]


def read_captions(path: str | Path) -> list[str]:
    """One caption per line, empty lines left out. Raises DataError."""
    found = [line for line in read_lines(path, "the file of captions") if line]
    if not found:
        raise DataError("the file of captions is empty", where=str(path), fix="one caption per line")
    return found


def chosen_captions(captions: str | Path | Sequence[str] | None, num: int | None = None) -> list[str]:
    """A list, the lines of a file, or the built-in ones; the first `num` of them. Raises DataError."""
    if captions is None:
        return default_captions(num) if num else default_captions()
    found = read_captions(captions) if isinstance(captions, (str, Path)) else list(captions)
    if num and len(found) < num:
        raise DataError(
            f"there are {len(found)} captions, not {num}", fix="fewer --num-captions, or more lines"
        )
    if not found:
        raise DataError("there are no captions to regularise with", fix="pass some, or leave captions out")
    return found[:num]


def regularisation_rows(
    encoder: PromptEncoder,
    captions: Sequence[str],
    *,
    include_bos: bool = False,
    include_padding: bool = False,
) -> Tensor:
    """C_reg (s_reg, d) float32 of the captions' tokens up to EOS.

    Captions that begin alike share rows: each is there once, scaled by the root of its count, which leaves
    C_reg^T C_reg as it was. include_bos: also the first row, which all prompts share. include_padding: also
    the rows after EOS, up to 75 per caption, to which pictures attend as well.
    """
    counts: Counter[tuple[int, ...]] = Counter()
    rows: dict[tuple[int, ...], Tensor] = {}
    for features in encoder.encode(captions):
        keys = row_keys(features.text, features.ids)
        if include_bos:
            keys.append(features.ids[:1])
        counts.update(keys)
        for key in keys:
            rows.setdefault(key, features.rows[len(key) - 1])
    scale = torch.tensor([counts[key] for key in rows], dtype=torch.float32).sqrt()
    found = torch.stack(list(rows.values())) * scale[:, None]
    return torch.cat([found, encoder.padding_rows(captions)]) if include_padding else found
