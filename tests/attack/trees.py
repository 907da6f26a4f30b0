"""What is in a folder, in a form that can be compared: numbers for tensors, no times, no process numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from safetensors import safe_open

from genzoo.core.checkpoint import checkpoint_steps, verify_checkpoint
from genzoo.core.errors import CheckpointError
from genzoo.core.leftovers import TEMPORARY

# what differs between two runs that are the same
VOLATILE = {"seconds", "samples_per_second", "stages", "updated", "started", "pid", "process", "host"}
UNLIKE = ("env.json", "status.json", "command.txt", ".lock", ".lock-holder", "README.md")


def content(path: Path) -> Any:
    """A file in a form that is equal when the files mean the same. Raises when it is cut short or damaged."""
    if path.suffix == ".safetensors":
        return _tensors(path)
    if path.suffix == ".json":
        return _steady(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [_steady(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".yaml":
        return yaml.safe_load(path.read_text())
    if path.suffix in (".png", ".jpg"):
        with Image.open(path) as picture:
            picture.load()
    return path.read_bytes()


def _tensors(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        told = file.metadata() or {}
    if path.name.endswith(".terms.safetensors"):
        told = {}  # the hash of a result, which holds its seconds
    metadata = {key: _steady(_parsed(text)) for key, text in told.items()}
    bits = {
        key: (str(one.dtype), tuple(one.shape), one.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        for key, one in found.items()
    }
    return {"tensors": bits, "metadata": metadata}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _steady(one) for key, one in value.items() if key not in VOLATILE}
    return [_steady(one) for one in value] if isinstance(value, list) else value


def files(root: Path, names: Iterable[str]) -> dict[str, Path]:
    """Every file of these names, and below them, by its relative path; but for what is unfinished."""
    places = [root / name for name in names]
    found = [path for place in places for path in (place.rglob("*") if place.is_dir() else [place])]
    named = {str(path.relative_to(root)): path for path in sorted(found) if path.is_file()}
    return {name: path for name, path in named.items() if TEMPORARY not in name}


def tree(root: Path, names: Iterable[str]) -> dict[str, Any]:
    """The content of every file; of those that tell of one run, that they are there.

    Shards of latents are one table: how many there are depends on how often it was begun.
    """
    found: dict[str, Any] = {}
    for name, path in files(root, names).items():
        if path.name.startswith("shard-"):
            found.setdefault(str(Path(name).with_name("rows")), {}).update(_rows(content(path)["tensors"]))
        else:
            found[name] = None if path.name in (*UNLIKE, "manifest.json") else content(path)
    return found


def _rows(shard: dict[str, tuple[str, tuple[int, ...], bytes]]) -> dict[bytes, bytes]:
    """The latents of each key."""
    num = shard["keys"][1][0]
    keys, moments = (shard[name][2] for name in ("keys", "moments"))
    size, wide = len(keys) // num, len(moments) // num
    return {keys[n * size : (n + 1) * size]: moments[n * wide : (n + 1) * wide] for n in range(num)}


def leftovers(root: Path) -> list[str]:
    """Names that a killed process left."""
    return [str(path.relative_to(root)) for path in root.rglob(f"{TEMPORARY[:4]}*")]


def damage(root: Path, names: Iterable[str]) -> list[str]:
    """What is half written under its own name: files that cannot be read, steps that are not whole."""
    found = []
    for name, path in files(root, names).items():
        try:
            content(path)
        except Exception as error:
            if path.suffix != ".jsonl":  # the last line of a log that grows
                found.append(f"{name}: {error}")
    for step in checkpoint_steps(root / "out" / "checkpoints").values():
        try:
            verify_checkpoint(step)
        except CheckpointError as error:
            found.append(f"{step.name}: {error}")
    return found
