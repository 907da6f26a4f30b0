"""Checkpoints that were verified already: hashing gigabytes again for each sample would take its time."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from genzoo.core.checkpoint_manifest import FILES, PARTS, verify_checkpoint

Stamps = tuple[tuple[str, int, int, int] | None, ...]
"""(name, inode, bytes, time of the last change in ns) of each file; None for one that cannot be seen."""


@dataclass(frozen=True)
class _Verified:
    step: int
    parts: frozenset[str]
    stamps: Stamps


class CheckpointMemory:
    """Verifies a checkpoint once in its lifetime; a folder in which any file changed is verified again."""

    def __init__(self) -> None:
        self._verified: dict[Path, _Verified] = {}

    def verify(self, path: Path, parts: Collection[str] = PARTS) -> int:
        """As `verify_checkpoint`, which is asked for what is not known yet only."""
        # looked at before the bytes are: what changes while they are read is not taken for verified
        stamps = _stamps(path)
        known = self._verified.get(path)
        done = known.parts if known is not None and known.stamps == stamps else frozenset()
        fresh = frozenset(parts) - done
        if known is None or not done or fresh:
            step = verify_checkpoint(path, fresh)
            known = self._verified[path] = _Verified(step, done | fresh, stamps)
        return known.step


def _stamps(path: Path) -> Stamps:
    return tuple(_stamp(path / name) for name in (*FILES, "manifest.json"))


def _stamp(path: Path) -> tuple[str, int, int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return path.name, found.st_ino, found.st_size, found.st_mtime_ns
