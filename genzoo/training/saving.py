"""Saving a run between two steps, or (`train.save: background`) beside the steps that follow.

Beside the steps, a copy is made into this machine's memory, and a thread writes, hashes, syncs and renames
it: the steps wait for the copy alone. What the thread met is told by `Saver.result`, which all processes call
together, so that an error is raised in all of them as it would be between two steps.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from genzoo.core.checkpoint import write_checkpoint
from genzoo.core.finite import require_finite
from genzoo.core.host_copies import HostCopies, require_room
from genzoo.core.processes import World
from genzoo.training.config import TrainConfig
from genzoo.training.record import RunRecord
from genzoo.training.state import Captured

Value = TypeVar("Value")
logger = logging.getLogger(__name__)


class Saver:
    """Writes the checkpoints of one run. All of its processes make the same calls.

    sharded: whether each process holds a part of the tensors. The first process writes; one save at a time.
    """

    def __init__(self, record: RunRecord, config: TrainConfig, world: World, *, sharded: bool) -> None:
        self.record, self.config, self.world, self.sharded = record, config, world, sharded
        self.in_background = config.save == "background"
        self._copies = HostCopies()
        self._thread: ThreadPoolExecutor | None = None
        self._writing: Future[Path] | None = None
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
            require_room(size)

    def save(self, content: Captured, step: int) -> None:
        """Begin to save a step; `result` tells how it ended, and is called before the next one begins.

        Raises NonFiniteError before anything is written.
        """
        parts = content.parts()
        self.by_holders(lambda world: world.together(lambda: require_finite(parts)))
        if self.in_background:
            self._copy(content)
            if self.world.is_first:
                copied = self._copied(content)
                self._writing = self._pool().submit(self._commit, copied, step, World.single())
        else:
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
            return self.world.on_first(self._wait)
        finally:
            self._writing = None

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
        self._thread = self._writing = None
        self._begun = False
        self._copies = HostCopies()

    def _copy(self, content: Captured) -> None:
        parts = content.parts()
        self.world.on_first(lambda: self._copies.make_room(parts))
        if self.sharded:
            self._copies.fill(parts, keeps=self.world.is_first)
        else:
            self.world.on_first(lambda: self._copies.fill(parts))

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

    def _wait(self) -> Path:
        assert self._writing is not None
        return self._writing.result()

    def _pool(self) -> ThreadPoolExecutor:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="genzoo-save")
        return self._thread
