"""Whether a latent cache holds what training would read: every picture and row is read, none written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from genzoo.core.types import LatentCodec
from genzoo.data.cached_clips import CachedClips
from genzoo.data.cached_latents import CachedLatents
from genzoo.data.frame_chunks import Item
from genzoo.data.latent_cache import source_of
from genzoo.data.latent_keys import load_stamps
from genzoo.data.latent_store import LatentStore
from genzoo.data.loader_workers import one_pass


@dataclass(frozen=True)
class CacheCheck:
    """total: items; of videos the frames.   replaced: those whose content changed under an unchanged size and
    time.   missing: others without an entry.   bad: "file: reason".   damaged: rows and shards.
    """

    total: int
    replaced: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether every picture that can be read has its entry, and every entry is sound."""
        return not (self.replaced or self.missing or self.damaged)

    def summary(self) -> str:
        """One line."""
        return (
            f"{len(self.replaced)} replaced, {len(self.missing)} without an entry,"
            f" {len(self.bad)} unreadable; {len(self.damaged)} damaged entries"
        )

    def problems(self) -> list[str]:
        """A line for each."""
        kinds = {
            "replaced under unchanged size and time": self.replaced, "no entry": self.missing,
            "unreadable": self.bad, "damaged": self.damaged,
        }  # fmt: skip
        return [f"{kind}: {one}" for kind, found in kinds.items() for one in found]


def check_latent_cache(
    dataset: CachedLatents | CachedClips,
    codec: LatentCodec,
    *,
    num_workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> CacheCheck:
    """Read every item and every row, and write nothing.   progress(done, total) is called after each item.

    Raises DataError when the disk does not give a shard.
    """
    store = LatentStore(dataset.folder)
    damaged = store.check()
    keyring, items = source_of(dataset, codec, frozenset(store.places))
    stamps = load_stamps(dataset.folder, keyring)
    found = CacheCheck(items.total, damaged=damaged)
    done = 0
    for number, group in enumerate(one_pass(items, num_workers, batch_size=None)):
        name = keyring.name(items.item(number))
        for entry in group:
            _note(found, entry, name, entry.key in store.places, stamps)
            done += 1
            if progress is not None:
                progress(done, items.total)
    return found


def _note(found: CacheCheck, entry: Item, name: str, stored: bool, stamps: dict[bytes, bytes]) -> None:
    known = None if entry.stamp is None else stamps.get(entry.stamp[0])
    if entry.error is not None:
        kind = found.bad
        name = entry.error
    elif entry.stamp is not None and known not in (None, entry.stamp[1]):
        kind = found.replaced
    elif not stored:
        kind = found.missing
    else:
        return
    if name not in kind:
        kind.append(name)
