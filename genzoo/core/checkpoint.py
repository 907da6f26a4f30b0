"""The checkpoint store: a folder per step that either exists completely and verifiably, or not at all.

    checkpoints/step_00000100/{model,ema,optimizer}.safetensors, state.json, manifest.json

Saving writes a temporary sibling, tensor by tensor, and hashes what it writes; it syncs the files, writes
the manifest, syncs the folder, renames it, syncs the parent, and only then prunes older steps. Reading trusts
the manifest's hashes and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from genzoo.core.checkpoint_manifest import (
    PARTS,
    STEP_FOLDER,
    CheckpointNotGiven,
    canonical,
    read_json,
    read_tensors,
    verify_checkpoint,
    write_manifest,
)
from genzoo.core.errors import CheckpointError
from genzoo.core.files import free_name, put_file, sync_path
from genzoo.core.finite import require_finite
from genzoo.core.leftovers import remove, remove_leftovers, temporary
from genzoo.core.processes import World
from genzoo.core.tensor_rows import FilesInRows, Written, can_be_filled, own_parts_of
from genzoo.core.tensor_stream import Segment, begin_tensors

logger = logging.getLogger(__name__)

ABOUT = {"format": "pt"}
Digests = Mapping[str, "str | list[Segment] | OSError"]
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


def save_checkpoint(
    root: Path,
    step: int,
    *,
    weights: Mapping[str, Tensor],
    state: Mapping[str, Any],
    ema: Mapping[str, Tensor] | None = None,
    optimizer: Mapping[str, Tensor] | None = None,
    keep_last: int = 3,
    keep_every: int = 0,
    world: World | None = None,
) -> Path:
    """Commit one step and return its folder; afterwards prune to the newest `keep_last` steps.

    keep_every: steps that are a multiple of it are never pruned; 0 keeps none of them for good.
    world: the processes that hold parts of sharded tensors, which make this call together; the first one
    writes. Alone without.
    The caller is the folder's only writer. Raises NonFiniteError before anything is written when a tensor is
    not finite, CheckpointError when the disk refuses; either way every older checkpoint is untouched.
    """
    world = world or World.single()
    tensors = {"model": weights, "ema": ema or {}, "optimizer": optimizer or {}}
    world.together(lambda: require_finite(tensors))
    return write_checkpoint(
        root, step, tensors, state, keep_last=keep_last, keep_every=keep_every, world=world
    )


def write_checkpoint(
    root: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    *,
    keep_last: int,
    keep_every: int,
    world: World,
) -> Path:
    """`save_checkpoint` of tensors that were found finite.   tensors: of "model", "ema" and "optimizer"."""
    files = begin_in_rows(root, step, tensors, state, world)
    if files is not None:
        written = world.together(lambda: files.write(own_parts_of(tensors)))
        return finish_in_rows(root, step, tensors, files, written, keep_last=keep_last, keep_every=keep_every)
    unfinished = _begun(root, step, tensors, state, world)
    streams = {
        f"{part}.safetensors": begin_tensors(
            unfinished / f"{part}.safetensors", content, ABOUT, writes=world.is_first
        )
        for part, content in tensors.items()
    }
    digests = {name: file.digest() for name, file in streams.items()}
    return _finished(root, step, tensors, unfinished, digests, world, (keep_last, keep_every))


def begin_in_rows(
    root: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    world: World,
) -> FilesInRows | None:
    """Make the files of a step for its processes to fill; None where they hold no rows, or see no folder
    together. All of them call it; each then writes by itself, and all call `finish_in_rows`.
    """
    if not can_be_filled(tensors, world):
        return None
    unfinished = _begun(root, step, tensors, state, world)
    if not world.all_agree(unfinished.is_dir()):
        world.on_first(lambda: remove(unfinished))
        return None
    files = FilesInRows(unfinished, tensors, ABOUT, world)
    world.on_first(lambda: _attempt(root / step_folder(step), unfinished, tensors, files.make))
    return files


def finish_in_rows(
    root: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    files: FilesInRows,
    written: Written,
    *,
    keep_last: int,
    keep_every: int,
) -> Path:
    """Commit what all processes wrote.   written: by this one."""
    world, joined = files.world, files.joined(written)
    return _finished(root, step, tensors, files.folder, joined, world, (keep_last, keep_every))


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
    """One hash over names, dtypes, shapes and bytes; recorded for weights that are not stored."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\x1f{tensor.dtype}\x1f{tuple(tensor.shape)}\x1f".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _attempt(
    final: Path, unfinished: Path, tensors: Mapping[str, Mapping[str, Tensor]], action: Callable[[], None]
) -> None:
    """Run one part of a save; what the disk refuses removes all of it."""
    try:
        action()
    except (OSError, SafetensorError) as error:
        remove(unfinished)
        raise _cannot_save(final, tensors, error) from error


def _begun(
    root: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    world: World,
) -> Path:
    """The folder in which a step is written, with its state, as the first process named it."""

    def begin() -> Path:
        unfinished = temporary(root / step_folder(step))
        _attempt(root / step_folder(step), unfinished, tensors, lambda: _begin(unfinished, step, state))
        return unfinished

    return world.on_first(begin)


def _finished(
    root: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    unfinished: Path,
    written: Digests,
    world: World,
    kept: tuple[int, int],
) -> Path:
    final = root / step_folder(step)
    finish = partial(_finish, unfinished, final, step, written)
    world.on_first(lambda: _attempt(final, unfinished, tensors, finish))
    world.on_first(lambda: _prune(root, step, *kept))
    return final


def _begin(unfinished: Path, step: int, state: Mapping[str, Any]) -> None:
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(unfinished.parent, only_writer=True)
    unfinished.mkdir()
    put_file(unfinished / "state.json", canonical(dict(state) | {"step": step}))


def _finish(unfinished: Path, final: Path, step: int, written: Digests) -> None:
    digests: dict[str, str | list[Segment]] = {}
    for name, outcome in written.items():
        if isinstance(outcome, OSError):
            raise outcome
        digests[name] = outcome
    write_manifest(unfinished, step, digests)
    sync_path(unfinished)
    _commit(unfinished, final)


def _commit(unfinished: Path, final: Path) -> None:
    if final.exists():
        # a corrupt or abandoned step of the same number: the newest valid one is never written again
        final.rename(temporary(final))
    unfinished.rename(final)
    sync_path(final.parent)


def _prune(root: Path, step: int, keep_last: int, keep_every: int) -> None:
    try:
        older = [(known, path) for known, path in checkpoint_steps(root).items() if known <= step]
        for known, path in older[max(keep_last, 1) :]:
            if not (keep_every and known % keep_every == 0):
                # renamed first: a half-deleted folder must never look like a checkpoint
                shutil.rmtree(path.rename(temporary(path)))
    except OSError as error:
        # the new step is safe, and the next save tries again
        logger.warning("old checkpoints in %s could not be removed: %s", root, error)


def _cannot_save(
    path: Path, tensors: Mapping[str, Mapping[str, Tensor]], error: Exception
) -> CheckpointError:
    needed = sum(tensor.nbytes for content in tensors.values() for tensor in content.values())
    free = "unknown"
    with contextlib.suppress(OSError):
        free = f"{shutil.disk_usage(path.parent).free:,}"
    return CheckpointError(
        f"cannot write the checkpoint of {needed:,} bytes; older checkpoints are untouched",
        where=str(path),
        why=f"{error} (free on this disk: {free} bytes)",
        fix="free some space or choose another --output, then run the same command again",
    )
