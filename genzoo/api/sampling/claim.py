"""Which folder samples belong to, and whether it may be written: samples.json says what a folder holds.

Sample i depends on the seed and on i alone, so a folder may grow: more samples of the same settings go beside
those that are there. Anything else in the folder means that it is somebody's, and nothing is written.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from genzoo.api.sampling.plan import SamplePlan, plain_conditions
from genzoo.core.claims import strangers
from genzoo.core.errors import UsageError
from genzoo.core.files import write_json
from genzoo.core.reading import read_json

if TYPE_CHECKING:
    from genzoo.core.types import Batch

FORMAT = 2
ABOUT = "samples.json"
ANOTHER = "name another folder, or delete this one"
FILES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".mp4", ".webm", ".mov", ".zip", ".npz")
WORDS_MAX = 40  # letters of the options in a folder's name


def default_folder(root: Path, checkpoint: str, seed: int, options: Mapping[str, Any]) -> Path:
    """The folder of samples with these options below a run: each set of options has one of its own.

    Its name says what was asked for, and ends in a hash of all of it.
    """
    asked = {name: _number(value) for name, value in sorted(options.items()) if value is not None}
    name = f"{checkpoint}_seed_{seed}"
    if asked:
        said = " ".join(f"{key} {value}" for key, value in asked.items())
        words = re.sub(r"[^A-Za-z0-9.]+", "-", said)[:WORDS_MAX].strip("-.")
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()
        name += f"_{words}_{digest[:8]}"
    return root / "samples" / name


def claim(folder: Path, content: Mapping[str, Any]) -> None:
    """Write samples.json, unless it says as much already. Raises UsageError for a folder of other things."""
    if claimed_samples(folder, content) < content["num"]:
        write_json(folder / ABOUT, content)


def claimed_samples(folder: Path, content: Mapping[str, Any]) -> int:
    """How many samples of this kind samples.json lists; 0 for a folder that is free.

    Raises UsageError when the folder holds anything else.
    """
    # looked at first: another process writes samples.json before its first picture
    others = _strangers(folder)
    path = folder / ABOUT
    if path.is_file():
        return _check_same(path, content)
    if others:
        raise UsageError(
            f"{folder} holds files and no {ABOUT}, so it is not a folder of samples",
            why=f"such as {', '.join(others[:3])}",
            fix="name a new folder",
        )
    return 0


def describe(plan: SamplePlan, settings: Mapping[str, Any], files: list[str]) -> dict[str, Any]:
    """The content of samples.json: settings, then file and condition of every index."""
    digests = {name: row_digests(value) for name, value in plan.conditions.items()}
    rows = [
        {
            "file": file,
            **plain_conditions(plan.conditions, index),
            **{name: rows[index] for name, rows in digests.items() if rows},
        }
        for index, file in enumerate(files)
    ]
    content = {"format": FORMAT, **settings, "num": plan.num, "samples": rows}
    plain: dict[str, Any] = json.loads(json.dumps(content, default=str))
    return plain


def row_digests(value: Batch | Any) -> list[str]:
    """A short hash of every row of a condition that is made of pixels or the like; [] for any other."""
    if not isinstance(value, torch.Tensor) or value.ndim < 2:
        return []
    shared = value.stride(0) == 0 and len(value) > 1  # one for all: its rows are one place in memory
    rows = [_digest(row) for row in (value[:1] if shared else value)]
    return rows * len(value) if shared else rows


def _digest(row: torch.Tensor) -> str:
    plain = row.detach().cpu().contiguous()
    array = plain.view(torch.uint8) if plain.ndim else plain
    return "sha256:" + hashlib.sha256(np.ascontiguousarray(array.numpy()).tobytes()).hexdigest()[:16]


def _strangers(folder: Path) -> list[str]:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, and samples need a folder", fix="name another --out")
    if folder.suffix.lower() in FILES and not folder.exists():
        raise UsageError(
            f"{folder} is named like a file, and samples need a folder",
            fix=f"name a folder, such as {folder.with_suffix('')}; clip_format=mp4 makes films",
        )
    return strangers(folder)


def _check_same(path: Path, content: Mapping[str, Any]) -> int:
    found = read_json(path, ABOUT, fix=ANOTHER)
    if not isinstance(found, dict) or not isinstance(found.get("samples"), list):
        raise UsageError(f"{path} was not written by genzoo", fix="name another folder")
    rows = found["samples"]
    names = sorted({*content, *found} - {"num", "samples", "classes"})
    other = [
        f"{name}: {_short(found.get(name))} there, {_short(content.get(name))} asked for"
        for name in names
        if found.get(name) != content.get(name)
    ]
    unlike = ((there, here) for there, here in zip(rows, content["samples"], strict=False) if there != here)
    other += [
        f"samples: {_short(there)} there, {_short(here)} asked for" for there, here in islice(unlike, 1)
    ]
    if other:
        raise UsageError(
            f"{path.parent} holds samples made with other settings",
            why=f"differs in {'; '.join(other[:4])}",
            fix=ANOTHER,
        )
    return len(rows)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _number(value: Any) -> Any:
    """4.0 as 4, as both ask for the same samples."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
