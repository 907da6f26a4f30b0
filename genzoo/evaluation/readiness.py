"""Can everything be read that samples will be judged with? Asked before any is made.

Their features are taken at the very end, hours later perhaps. The pictures of a data set are not looked at
here: training has read them.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.core.cache_folder import cache_folder
from genzoo.core.errors import DataError
from genzoo.core.files import write_file
from genzoo.data.picture_sets import DatasetPictures, FilePictures, PictureSet, Subset, open_pictures
from genzoo.data.readable import reading_errors
from genzoo.evaluation.clip_sources import ClipSet, choose_clips, real_clips
from genzoo.evaluation.counts import require_enough
from genzoo.evaluation.edges import require_a_map_each
from genzoo.evaluation.evaluate_images import control_maps
from genzoo.evaluation.judging import Notes, Settings, adjust
from genzoo.evaluation.measuring import open_reference

if TYPE_CHECKING:
    from genzoo.evaluation.protocols import Protocol

SHOWN = 3  # files that are named


def require_ready(
    protocol: Protocol,
    settings: Settings,
    *,
    num: int | None,
    reference: Any,
    controls: Any = None,
    frames: int | None = None,
) -> None:
    """Raise now what judging `num` samples would raise for its reference or its control maps.

    frames: of a clip that is judged, where the protocol names no number.
    """
    used = adjust(protocol, num=num, available=sys.maxsize, notes=Notes())
    maps = None if used.kind == "clips" else control_maps(used, controls)
    if maps is not None:
        require_a_map_each(used.num, len(maps))
    real = _pictures_of(reference, used, frames)
    if real is not None:
        require_enough(used, used.num, len(real))
    _require_all(maps, real, settings)


def require_files_ready(
    source: Any, protocol: Protocol, settings: Settings, *, reference: Any, controls: Any = None
) -> None:
    """Raise DataError for files of a reference, or control maps, that cannot be read.

    source: what will be judged; its own files are the first to be read.
    """
    if protocol.kind == "clips":
        frames = ClipSet(source, frames=protocol.clips["frames"]).frames
        _require_all(None, _pictures_of(reference, protocol, frames), settings)
        return
    maps = control_maps(protocol, controls)
    open_pictures(source)
    _require_all(maps, _pictures_of(reference, protocol, None), settings)


def _require_all(maps: PictureSet | None, real: PictureSet | None, settings: Settings) -> None:
    if maps is not None:
        require_readable(maps, "control maps", settings)
    if real is not None:
        require_readable(real, "reference", settings)


def _pictures_of(reference: Any, used: Protocol, frames: int | None) -> PictureSet | None:
    """What will be looked at; None of a file of statistics, and of clips that a data set cuts."""
    if used.kind != "clips":
        opened = open_reference(reference)
        return None if isinstance(opened, Path) else opened
    if isinstance(reference, DatasetPictures):
        return None
    cut = used.clips
    real = real_clips(reference, cut, cut["frames"] or frames)
    wanted = min(used.reference.get("num") or len(real), len(real))
    return choose_clips(real, wanted, select=cut["select"], seed=cut["seed"])


def require_readable(pictures: PictureSet, what: str, settings: Settings) -> None:
    """Read all files of a set to their last byte. Raises DataError that names those that cannot be read.

    Files that were read once are known by name, size and time of change, and not read again.
    """
    world = settings.world
    mark = world.on_first(lambda: _mark(pictures))
    if mark is None or world.on_first(lambda: settings.cache and mark.is_file()):
        return
    part, bad = world.part(len(pictures)), list[tuple[str, str]]()
    report = settings.report(f"checking the {what}", len(part))

    def look() -> None:
        for done, (index, error) in enumerate(reading_errors(pictures.read, part), 1):
            if error is not None:
                bad.append(
                    (error.where or pictures.name(index), ": ".join(filter(None, (error.what, error.why))))
                )
            report(done)

    world.together(look)
    found = [one for here in world.gather(bad) for one in here]
    if found:
        raise _refusal(found, len(pictures), what)
    if settings.cache:
        with contextlib.suppress(DataError):  # no room: they are read once more
            world.on_first(lambda: write_file(mark, b""))


def _mark(pictures: PictureSet) -> Path | None:
    """The file that is there once all of them were read; None of a set that is not of files."""
    digest = hashlib.sha256()
    for index in range(len(pictures)):
        source, place = pictures, index
        while isinstance(source, Subset):
            place, source = source.indices[place], source.pictures
        stamp = source.stamp(place) if isinstance(source, FilePictures | ClipSet) else None
        if stamp is None:
            return None
        digest.update(f"{pictures.name(index)}\0{stamp}\0".encode("utf-8", "surrogateescape"))
    return cache_folder("reference") / f"{digest.hexdigest()[:32]}.read"


def _refusal(bad: Sequence[tuple[str, str]], total: int, what: str) -> DataError:
    names = ", ".join(name for name, _ in bad[:SHOWN])
    more = f", and {len(bad) - SHOWN} more, which `genzoo prepare check FOLDER` lists" * (len(bad) > SHOWN)
    return DataError(
        f"{len(bad)} of {total} files of the {what} cannot be read",
        why="; ".join(f"{name}: {reason}" for name, reason in bad[:SHOWN]),
        fix=f"mend {names}, or take {'it' if len(bad) == 1 else 'them'} out of the folder{more}",
    )
