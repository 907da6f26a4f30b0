"""The packed form in which a small text-to-image model ships, and the complete folder made of it again.

A small text encoder is nearly all token table: 49,408 rows, of which a base that was trained on a few
thousand captions has learnt one in thirty. The packed form keeps those rows and one more, their mean, for
all words that no caption had; and no tokenizer, because CLIP's vocabulary comes with open_clip.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genzoo.core.errors import CheckpointError
from genzoo.core.files import as_safetensors, write_file, write_folder
from genzoo.core.tensor_files import read_tensors
from genzoo.pretrained.clip_vocabulary import clip_tokenizer

TABLE = "token_embedding.weight"
IDS, ROWS, OTHERS = "packed.token_ids", "packed.token_rows", "packed.other_tokens"
ENCODER_FILE = Path("text_encoder/model.safetensors")
TOKENIZER = "tokenizer"


def used_tokens(tokenizer: Any, captions: Iterable[str]) -> Tensor:
    """Sorted ids (n,) of every token of the captions, with beginning and end."""
    ids: set[int] = set(tokenizer("").input_ids)
    for caption in dict.fromkeys(captions):
        ids.update(tokenizer(caption).input_ids)
    return torch.tensor(sorted(ids))


def pack(folder: str | Path, output: str | Path, token_ids: Tensor) -> Path:
    """Copy a folder without its tokenizer, and of the token table only some rows, in half precision.

    token_ids: (n,) the words that the model was trained with; all others become their mean.
    """

    def fill(target: Path) -> None:
        shutil.copytree(folder, target, ignore=shutil.ignore_patterns(TOKENIZER), dirs_exist_ok=True)
        state = read_tensors(target / ENCODER_FILE)
        rows = state.pop(_table_name(state, Path(folder)))[token_ids]
        state |= {IDS: token_ids.int(), ROWS: rows, OTHERS: rows.float().mean(0)}
        save_tensors({key: halved(value) for key, value in state.items()}, target / ENCODER_FILE)
        for path in target.rglob("*.safetensors"):
            if path != target / ENCODER_FILE:
                save_tensors({key: halved(value) for key, value in read_tensors(path).items()}, path)

    return write_folder(output, fill)


def is_packed(folder: Path) -> bool:
    """Whether a folder holds a packed model."""
    return (folder / ENCODER_FILE).is_file() and not (folder / TOKENIZER).exists()


def unpack(packed: Path, output: Path) -> Path:
    """The complete folder of a packed one; that of a process that was faster stays."""

    def fill(target: Path) -> None:
        shutil.copytree(packed, target, dirs_exist_ok=True)
        state = read_tensors(packed / ENCODER_FILE)
        if not {IDS, ROWS, OTHERS} <= state.keys():
            raise CheckpointError("this text encoder is not packed", where=str(packed / ENCODER_FILE))
        ids, rows, others = (state.pop(key) for key in (IDS, ROWS, OTHERS))
        tokenizer = clip_tokenizer()
        table = others.repeat(len(tokenizer), 1)
        table[ids.long()] = rows
        save_tensors({**state, _prefix(state) + TABLE: table}, target / ENCODER_FILE)
        tokenizer.save_pretrained(str(target / TOKENIZER))

    return write_folder(output, fill, existing="keep")


def _table_name(state: dict[str, Tensor], folder: Path) -> str:
    found = [key for key in state if key.endswith(TABLE)]
    if len(found) != 1:
        raise CheckpointError(f"the text encoder has {len(found)} token tables, not one", where=str(folder))
    return found[0]


def _prefix(state: dict[str, Tensor]) -> str:
    """What stands before "token_embedding" in this version's names, from the table of positions."""
    name = next(key for key in state if key.endswith("position_embedding.weight"))
    return name.removesuffix("position_embedding.weight")


def halved(value: Tensor) -> Tensor:
    """Numbers with a fraction in 16 bits, all others as they are."""
    return value.half() if value.is_floating_point() else value


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """A file of weights as diffusers and transformers take it."""
    write_file(path, as_safetensors(tensors, {"format": "pt"}))
