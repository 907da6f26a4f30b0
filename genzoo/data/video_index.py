"""What is known of many video files, found once: how many frames each has, when they appear, where to enter.

One file per data folder lies in the user's cache, or in a folder of choice. An entry is found by the file's
name, size and time of change, so an edited file is looked at again and a moved data folder costs one pass.
The index is written in one step, and processes that build it at once write the same. What is damaged or
cannot be written is only a loss of time. Unreadable files have entries too: the reason, told to whoever
fetches them.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from genzoo.core.cache_folder import cache_folder
from genzoo.core.errors import DataError
from genzoo.core.files import write_file
from genzoo.core.reading import reason, shown
from genzoo.core.tensor_files import FAILURES, open_tensors
from genzoo.data.image_listing import Names
from genzoo.data.latent_store import digest
from genzoo.data.sample_stream import one_line
from genzoo.data.video_decode import VideoFacts, probe

logger = logging.getLogger(__name__)

Known = dict[str, VideoFacts | str]
"""Stamp of a file -> its facts, or why it cannot be read."""


class VideoIndex:
    """The facts of some video files, in order; arrays, so that loader workers share them."""

    def __init__(self, root: Path, names: Sequence[str], *, folder: str | Path | None = None) -> None:
        self.root, self.names = root, names
        stamps = [stamp_of(root, name) for name in names]
        self.stamps = Names(stamps)
        place = cache_folder("videos") if folder is None else Path(folder).expanduser()
        path = place / f"index-{digest(os.fsencode(root)).hex()}.safetensors"
        known = read_index(path) if names else {}
        new = {stamp: name for name, stamp in zip(names, stamps, strict=True) if stamp not in known}
        if new:
            logger.info("looking at %d of %d video files, once", len(new), len(names))
            edited = set(new.values())
            known = {stamp: facts for stamp, facts in known.items() if _name_in(stamp) not in edited}
            known |= _look(root, new)
            _remember(path, known)
        self._table = _Table.of([known[stamp] for stamp in stamps])

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> VideoFacts:
        """Raises DataError for a file that cannot be read, or was changed since the index was made."""
        if self.stamps[index] != stamp_of(self.root, self.names[index]):
            where = shown(self.root / self.names[index])
            raise DataError("this video was changed after it was indexed", where=where, fix="start again")
        if index in self._table.reasons:
            raise DataError(self._table.reasons[index])
        return self._table.facts(index)

    def num_frames(self, index: int) -> int:
        """How many frames a file has; 0 when it cannot be read."""
        return self._table.num_frames(index)


def stamp_of(root: Path, name: str) -> str:
    """Name, size and time of change of a file: differs after an edit, without reading it."""
    try:
        status = (root / name).stat()
    except OSError:  # a link to nowhere, or deleted since: reading it will say so
        return f"{name}|missing|0"
    return f"{name}|{status.st_size}|{status.st_mtime_ns}"


def _name_in(stamp: str) -> str:
    return stamp.rsplit("|", 2)[0]


def _look(root: Path, files: dict[str, str]) -> Known:
    """Probe files, given as stamp -> name."""

    def facts(name: str) -> VideoFacts | str:
        try:
            return probe(root / name)
        except DataError as error:
            return one_line(error)

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return dict(zip(files, pool.map(facts, files.values()), strict=True))


@dataclass(frozen=True)
class _Table:
    """Facts of many files laid end to end.

    bases: (n, 2) time bases as fractions.   times, entries, targets: as in VideoFacts, of all files.
    ends: (3, n + 1) where each file's part of them begins and ends.   reasons: why a file cannot be read.
    """

    bases: np.ndarray
    times: np.ndarray
    entries: np.ndarray
    targets: np.ndarray
    ends: np.ndarray
    reasons: dict[int, str]

    @classmethod
    def of(cls, known: Sequence[VideoFacts | str]) -> _Table:
        nothing = np.zeros(0, np.int64)
        none = VideoFacts(nothing, nothing, nothing, Fraction(1))
        facts = [none if isinstance(each, str) else each for each in known]
        columns = (
            [each.times for each in facts],
            [each.entries for each in facts],
            [each.targets for each in facts],
        )
        times, entries, targets = (np.concatenate([nothing, *column]).astype(np.int64) for column in columns)
        bases = [(each.time_base.numerator, each.time_base.denominator) for each in facts]
        ends = np.array([np.cumsum([0, *(len(part) for part in column)]) for column in columns])
        reasons = {index: each for index, each in enumerate(known) if isinstance(each, str)}
        return cls(np.array(bases, np.int64).reshape(-1, 2), times, entries, targets, ends, reasons)

    def num_frames(self, index: int) -> int:
        return int(self.ends[0, index + 1] - self.ends[0, index])

    def facts(self, index: int) -> VideoFacts:
        cuts = [slice(*self.ends[column, index : index + 2].tolist()) for column in range(3)]
        base = Fraction(*self.bases[index].tolist())
        return VideoFacts(self.times[cuts[0]], self.entries[cuts[1]], self.targets[cuts[2]], base)


_ARRAYS = ("bases", "times", "entries", "targets", "ends")


def _remember(path: Path, known: Known) -> None:
    """Write the index; a cache that cannot be written is no reason to stop."""
    table = _Table.of(list(known.values()))
    tensors = {name: torch.from_numpy(getattr(table, name)) for name in _ARRAYS}
    said = {"stamps": json.dumps(list(known)), "reasons": json.dumps(table.reasons)}
    content = save(tensors, said | {"check": _check(said, tensors)})
    try:
        write_file(path, content)
    except DataError as error:
        logger.warning("the index of videos is not kept: %s", one_line(error))


def _check(said: dict[str, str], tensors: dict[str, torch.Tensor]) -> str:
    parts = [tensors[name].numpy().tobytes() for name in _ARRAYS]
    return digest(said["stamps"], said["reasons"], *parts).hex()


def read_index(path: Path) -> Known:
    """What an index file says; nothing when there is none, or it is damaged."""
    if not path.is_file():
        return {}
    try:
        with open_tensors(path, "the index", error=DataError) as file:
            said = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in _ARRAYS}
        if said["check"] != _check(said, tensors):
            raise ValueError("its checksum does not fit")
        reasons = {int(index): reason for index, reason in json.loads(said["reasons"]).items()}
        table = _Table(**{name: tensor.numpy() for name, tensor in tensors.items()}, reasons=reasons)
        stamps: list[str] = json.loads(said["stamps"])
    except FAILURES as error:
        logger.warning(
            "%s is damaged, or not given; the videos are looked at again: %s", shown(path), reason(error)
        )
        return {}
    return {stamp: reasons.get(index) or table.facts(index) for index, stamp in enumerate(stamps)}
