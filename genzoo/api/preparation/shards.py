"""The indices of tar shards, each made once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from genzoo.core.processes import World
from genzoo.data.image_shards import shards_in
from genzoo.data.shard_index import is_current, make_index, open_index
from genzoo.data.shard_places import ShardPlace, place_of


@dataclass(frozen=True)
class ShardReport:
    """made: indices that were missing or of other content.   ignored: members of no sample, in those."""

    shards: int
    samples: int
    made: int
    ignored: list[str]


def prepare_shards(
    folder: str | Path,
    output: Path | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    world: World | None = None,
) -> ShardReport:
    """Index every shard of a folder that has no current index. Raises DataError for one that is not plain.

    folder: or a URL that fsspec reads, behind which no index is written.   output: where the indices go,
    beside the shards when left out.   world: processes that share the work.
    """
    world = world or World.single()
    shards = shards_in(place_of(folder))
    mine = world.every(shards)

    def index() -> list[tuple[int, int, list[str]]]:
        found = []
        for done, path in enumerate(mine, 1):
            found.append(_indexed(path, output))
            if progress is not None:
                progress(done, len(mine))
        return found

    rows = [row for part in world.gather(world.together(index)) for row in part]
    ignored = sorted(name for _, _, names in rows for name in names)
    return ShardReport(len(shards), sum(row[0] for row in rows), sum(row[1] for row in rows), ignored)


def _indexed(path: ShardPlace, output: Path | None) -> tuple[int, int, list[str]]:
    """Samples, whether the index was made, and what it leaves out."""
    if is_current(path, output):
        return len(open_index(path, output)), 0, []
    _, content = make_index(path, output)
    return len(content.samples), 1, [f"{path.name}: {name}" for name in content.ignored]
