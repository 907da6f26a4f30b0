"""Saving a checkpoint: the step is complete and on the disk before it has its name.

It writes a temporary sibling, tensor by tensor, and hashes what it writes; it syncs the files, writes the
manifest, syncs the folder, renames it, syncs the parent, and only then prunes older steps.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from genzoo.core.checkpoint import checkpoint_steps, step_folder
from genzoo.core.checkpoint_manifest import (
    canonical,
    write_manifest,
)
from genzoo.core.errors import CheckpointError
from genzoo.core.files import put_file, sync_path
from genzoo.core.finite import require_finite
from genzoo.core.leftovers import remove, remove_leftovers, temporary
from genzoo.core.processes import World
from genzoo.core.tensor_rows import FilesInRows, Written, can_be_filled, own_parts_of
from genzoo.core.tensor_stream import Segment, begin_tensors

logger = logging.getLogger(__name__)

ABOUT = {"format": "pt"}
Digests = Mapping[str, "str | list[Segment] | OSError"]


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
