"""Files with one new word each beside attention processors, whatever a file system made of their names.

diffusers' trainer calls them <new1>.bin, which Windows and many an archive cannot keep: the word inside
counts, and where there is none, the name with its brackets put back.
"""

from __future__ import annotations

import html
import logging
import re
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genzoo.core.errors import CheckpointError
from genzoo.pretrained.loading import load_foreign

logger = logging.getLogger(__name__)

SUFFIXES = (".bin", ".safetensors", ".pt")
TWO_ENCODERS = ("clip_l", "clip_g")
NAMELESS = ("emb_params", *TWO_ENCODERS)  # entries that do not say the word
_BRACKETS = str.maketrans("＜‹«［｛（＞›»］｝）", "<<<[{(>>>]})")
_NAME = re.compile(r"[<\[{(_]*(?P<core>.+?)[>\]})_]*")


def read_token_files(folder: Path, besides: tuple[str, ...]) -> dict[str, list[Tensor]]:
    """Word -> its embedding for each text encoder, of every file in the folder that holds one.

    besides: names of other files. Raises CheckpointError for two files of one word that differ.
    """
    tokens: dict[str, list[Tensor]] = {}
    places: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix not in SUFFIXES or path.name in besides or path.name.startswith("."):
            continue
        found = _read(path)
        if found is None:
            continue
        word, rows = found
        if word in tokens and not all(map(torch.equal, tokens[word], rows)):
            raise CheckpointError(
                f"two files hold the word {word}, and they differ",
                where=str(folder),
                why=f"{places[word]} and {path.name}",
                fix="leave the one that is meant",
            )
        tokens[word], places[word] = rows, path.name
    return tokens


def word_of(stem: str) -> str:
    """The word that a file's name stands for: <new1> of <new1>, _new1_, %3Cnew1%3E, [new1] or new1."""
    plain = html.unescape(urllib.parse.unquote(stem)).translate(_BRACKETS).strip()
    match = _NAME.fullmatch(plain)
    return f"<{match['core'].strip() if match else plain}>"


def _read(path: Path) -> tuple[str, list[Tensor]] | None:
    """The word of a file and its rows; None for a file of something else."""
    is_named = path.stem.startswith("<") and path.stem.endswith(">")
    try:
        tree = load_foreign(path)
    except CheckpointError:
        if is_named:
            raise
        logger.warning("%s is left out: it is no file of a word", path)
        return None
    rows = _rows(tree)
    if rows is None or (is_named and not {path.stem, *NAMELESS} & tree.keys()):
        if is_named:
            held = ", ".join(map(repr, list(tree)[:3]))
            raise CheckpointError(
                f"{path.name} has no embedding of {path.stem}", where=str(path), why=f"it holds {held}"
            )
        return None
    (*names,) = tree
    word = path.stem if is_named else names[0] if names[0] not in NAMELESS else word_of(path.stem)
    if word != path.stem:
        logger.info("%s holds the word %s", path.name, word)
    return word, rows


def _rows(tree: Mapping[str, Any]) -> list[Tensor] | None:
    if set(TWO_ENCODERS) <= tree.keys():
        return [tree[name].reshape(-1) for name in TWO_ENCODERS]
    values = list(tree.values())
    if len(values) == 1 and isinstance(values[0], Tensor) and values[0].numel() == values[0].shape[-1]:
        return [values[0].reshape(-1)]
    return None
