"""The checkpoint store: a folder per step that either exists completely and verifiably, or not at all.

    checkpoints/step_00000100/{model,ema,optimizer}.safetensors, state.json, manifest.json

`checkpoint_saving` writes it. Reading trusts the manifest's hashes and nothing else.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genzoo.core.checkpoint_manifest import (
    PARTS,
    STEP_FOLDER,
    CheckpointNotGiven,
    read_json,
    read_tensors,
    verify_checkpoint,
)
from genzoo.core.errors import CheckpointError
from genzoo.core.files import free_name
from genzoo.core.shapes_alone import has_values

logger = logging.getLogger(__name__)

Verify = Callable[[Path, Collection[str]], int]
"""(folder of a step, parts) -> the step, or CheckpointError: `verify_checkpoint`, or one that remembers."""


@dataclass(frozen=True)
class Checkpoint:
    """One step. weights, ema: by parameter name.   optimizer: by "parameter/slot".   state: plain JSON."""

    path: Path
    step: int
    weights: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]

    def averaged(self) -> dict[str, Tensor]:
        """The weights to sample with: averaged where an average was kept, raw elsewhere (buffers)."""
        return self.weights | self.ema


def step_folder(step: int) -> str:
    """The folder name of a step."""
    return f"step_{step:08d}"


def checkpoint_steps(root: Path) -> dict[int, Path]:
    """All committed steps, newest first; their content is not looked at."""
    if not root.is_dir():
        return {}
    found = [(STEP_FOLDER.fullmatch(path.name), path) for path in root.iterdir()]
    steps = {int(match[1]): path for match, path in found if match}
    return dict(sorted(steps.items(), reverse=True))


def latest_valid(root: Path, verify: Verify = verify_checkpoint) -> Path | None:
    """The newest step whose every byte is verified, or None when nothing was ever committed.

    Corrupt steps are named in a warning and skipped. Raises CheckpointError when steps exist and all are
    corrupt: starting over silently would lose the run; and when the disk does not give one just now.
    """
    reasons = []
    for path in checkpoint_steps(root).values():
        try:
            verify(path, PARTS)
        except CheckpointNotGiven:
            raise  # it may be whole, and to go on from an older one would make another run
        except CheckpointError as error:
            logger.warning("CORRUPT CHECKPOINT SKIPPED: %s: %s", path, error.why or error.what)
            reasons.append(f"{path.name}: {error.why or error.what}")
        else:
            return path
    if reasons:
        raise CheckpointError(
            f"all {len(reasons)} checkpoints are corrupt; refusing to start over",
            where=str(root),
            why="; ".join(reasons[:3]),
            fix="restore one from a backup, or move the folder away to start again",
        )
    return None


def load_checkpoint(
    path: str | Path, parts: Collection[str] = PARTS, verify: Verify = verify_checkpoint
) -> Checkpoint:
    """Read a verified step onto the CPU. parts: those of model, ema, optimizer to read; others stay empty.

    Raises CheckpointError when the folder is missing, corrupt or hostile.
    """
    path = Path(path)
    if not path.is_dir():
        raise CheckpointError("there is no checkpoint here", where=str(path), fix="check the path")
    step = verify(path, parts)
    tensors = {part: read_tensors(path, part) if part in parts else {} for part in PARTS}
    state = read_json(path, "state.json")
    return Checkpoint(path, step, tensors["model"], tensors["ema"], tensors["optimizer"], state)


def set_aside_after(root: Path, step: int) -> list[Path]:
    """Rename steps newer than the one a run continues from, so that they neither count nor get in the way."""
    moved = []
    for newer, path in checkpoint_steps(root).items():
        if newer > step:
            target = free_name(root, f"aside_{path.name}")
            path.rename(target)
            logger.warning("%s is newer than step %d and was set aside as %s", path.name, step, target.name)
            moved.append(target)
    return moved


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """One hash over names, dtypes, shapes and bytes, where there are such; recorded for weights that are not
    stored.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\x1f{tensor.dtype}\x1f{tuple(tensor.shape)}\x1f".encode())
        if has_values(tensor):
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
