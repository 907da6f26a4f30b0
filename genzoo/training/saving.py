"""Saving a run between two steps, or (`train.save: background`) beside the steps that follow.

Beside the steps, a copy is made into this machine's memory, and a thread looks at it, writes, hashes, syncs
and renames it: the steps wait for the copy alone. Where processes hold rows of a model and see one folder,
each copies and writes its own, and the step is committed once all have. What the threads met is told by
`Saver.result`, which all processes call together, so that an error is raised in all of them as it would be
between two steps.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from genzoo.core.checkpoint_saving import begin_in_rows, finish_in_rows, write_checkpoint
from genzoo.core.finite import require_finite
from genzoo.core.host_copies import HostCopies, require_room
from genzoo.core.leftovers import remove
from genzoo.core.processes import World, processes_of_a_machine
from genzoo.core.sharded import own_part
from genzoo.core.tensor_rows import FilesInRows, Parts, Written
from genzoo.training.config import TrainConfig
from genzoo.training.record import RunRecord
from genzoo.training.state import Captured

Value = TypeVar("Value")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Rows:
    """A step that processes write at once.   parts: its tensors, whose sizes an error tells."""

    files: FilesInRows
    step: int
    parts: Mapping[str, Mapping[str, Tensor]]


class Saver:
    """Writes the checkpoints of one run. All of its processes make the same calls.

    sharded: whether each process holds a part of the tensors. The first process writes; one save at a time.
    """

    def __init__(self, record: RunRecord, config: TrainConfig, world: World, *, sharded: bool) -> None:
        self.record, self.config, self.world, self.sharded = record, config, world, sharded
        self.in_background = config.save == "background"
        self._copies = HostCopies()
        self._thread: ThreadPoolExecutor | None = None
        self._writing: Future[Any] | None = None
        self._rows: _Rows | None = None
        self._begun = False

    @property
    def has_ended(self) -> bool | None:
        """Whether the save that was begun ended, as far as this process knows; None in the foreground."""
        if not self.in_background:
            return None
        return self._writing is not None and self._writing.done()

    def require_room(self, size: int) -> None:
        """Raise UsageError where a checkpoint of so many bytes would not fit into this machine's memory."""
        if self.in_background:
            here = processes_of_a_machine() if self.sharded else self.world.size  # each keeps its rows
            require_room(size * here // self.world.size)

    def save(self, content: Captured, step: int) -> None:
        """Begin to save a step; `result` tells how it ended, and is called before the next one begins.

        Raises NonFiniteError before anything is written, here or (beside the steps) in `result`.
        """
        if self.in_background:
            if not self._begin_rows(content, step):
                self._copy(content)
                if self.world.is_first:
                    copied = self._copied(content)
                    self._writing = self._pool().submit(self._looked_at, copied, step)
        else:
            parts = content.parts()
            self.by_holders(lambda world: world.together(lambda: require_finite(parts)))
            path = self.by_holders(lambda world: self._commit(content, step, world))
            self._writing = Future()
            self._writing.set_result(path)
        self._begun = True

    def result(self) -> Path | None:
        """Wait until the save that was begun is committed: its folder. None when none was begun.

        Raises what the foreground would have raised, in every process.
        """
        if not self._begun:
            return None
        self._begun = False
        try:
            return self.world.on_first(self._wait) if self._rows is None else self._end_rows(self._rows)
        finally:
            self._writing = self._rows = None

    def by_holders(self, action: Callable[[World], Value]) -> Value:
        """Do it in the first process; where each holds a part of the tensors, in all of them together."""
        if self.sharded:
            return action(self.world)
        return self.world.on_first(lambda: action(World.single()))

    def close(self) -> None:
        """Wait for a save in flight, in this process alone, where another error ended the run."""
        if self._writing is not None and (error := self._writing.exception()) is not None:
            logger.warning("the checkpoint that was being written is lost: %s", error)
        if self._thread is not None:
            self._thread.shutdown()
        if self._rows is not None and self.world.is_first:  # nobody knows what the others wrote
            logger.warning("the checkpoint of step %d, which was being written, is lost", self._rows.step)
            remove(self._rows.files.folder)
        self._thread = self._writing = self._rows = None
        self._begun = False
        self._copies = HostCopies()

    def _copy(self, content: Captured) -> None:
        parts = content.parts()
        self.world.on_first(lambda: self._copies.make_room(parts))
        if self.sharded:
            self._copies.fill(parts, keeps=self.world.is_first)
        else:
            self.world.on_first(lambda: self._copies.fill(parts))

    def _begin_rows(self, content: Captured, step: int) -> bool:
        """Copy what this process holds, and write it beside the steps; False where that cannot be done."""
        if not self.sharded:
            return False
        parts, root = content.parts(), self.record.folder.checkpoints
        self.world.on_first(self.record.before_save)
        files = begin_in_rows(root, step, parts, content.state, self.world)
        if files is None:
            return False
        self._rows = _Rows(files, step, parts)
        own = {
            part: {name: own_part(tensors[name]) for name in files.names(part)}
            for part, tensors in parts.items()
        }
        self.world.together(lambda: self._copies.make_room(own))
        self._copies.fill(own)
        self._writing = self._pool().submit(self._write_rows, files, self._copies.copied())
        return True

    def _write_rows(self, files: FilesInRows, own: Parts) -> Written:
        require_finite(own)
        return files.write(own)

    def _end_rows(self, rows: _Rows) -> Path:
        """Wait for all processes, and commit what they wrote."""
        try:
            written: Written = self.world.together(self._wait)
        except Exception:
            if self.world.is_first:
                remove(rows.files.folder)
            raise
        path = finish_in_rows(
            self.record.folder.checkpoints,
            rows.step,
            rows.parts,
            rows.files,
            written,
            keep_last=self.config.keep_last,
            keep_every=self.config.keep_every,
        )
        self.world.on_first(self.record.after_save)
        return path

    def _looked_at(self, content: Captured, step: int) -> Path:
        require_finite(content.parts())
        return self._commit(content, step, World.single())

    def _copied(self, content: Captured) -> Captured:
        parts = self._copies.copied()
        return Captured(parts["model"], parts["ema"], parts["optimizer"], copy.deepcopy(content.state))

    def _commit(self, content: Captured, step: int, world: World) -> Path:
        world.on_first(self.record.before_save)
        path = write_checkpoint(
            self.record.folder.checkpoints,
            step,
            content.parts(),
            content.state,
            keep_last=self.config.keep_last,
            keep_every=self.config.keep_every,
            world=world,
        )
        world.on_first(self.record.after_save)
        return path

    def _wait(self) -> Any:
        assert self._writing is not None
        return self._writing.result()

    def _pool(self) -> ThreadPoolExecutor:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="genzoo-save")
        return self._thread
