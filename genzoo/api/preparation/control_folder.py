"""Controls of a folder of pictures, as PNG files of the same names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image
from torch import Tensor

from genzoo.api.preparation.controls import SHEET, SHOWN, save_sheet
from genzoo.core.claims import claim_folder, require_apart
from genzoo.core.contracts import able
from genzoo.core.contracts.parts import SaysSettings
from genzoo.core.contracts.tasks import ExtractsControls, KnowsSides
from genzoo.core.controls import build_control
from genzoo.core.errors import DataError, UsageError
from genzoo.core.files import write_file
from genzoo.core.processes import World, chosen_device
from genzoo.core.sizes import Size, sides
from genzoo.data.control_files import EXTRACTOR, SOURCE, control_facts, control_png
from genzoo.data.image_decode import decode_image, read_file
from genzoo.data.image_listing import list_images
from genzoo.data.latent_cache import CacheReport
from genzoo.data.latent_store import digest
from genzoo.data.own_outputs import is_overview
from genzoo.data.sample_stream import one_line
from genzoo.data.transforms import adm_centre_crop, size_name, to_tensor

if TYPE_CHECKING:
    from genzoo.api.runs.run_data import RunData
    from genzoo.core.types import ControlExtractor

SHEET_SIDE = 256


class ControlsWanted(NamedTuple):
    """What to make of a folder's pictures. size: (height, width) to crop each to first; None for its own."""

    extractor: ControlExtractor
    size: tuple[int, int] | None = None

    @classmethod
    def of(cls, control: str | Mapping[str, Any], size: Size | None = None) -> ControlsWanted:
        """By the extractor of a name or section. Raises UsageError for a name or setting that is none."""
        return cls(build_control(control), None if size is None else sides(size))

    @property
    def described(self) -> str:
        told = able(self.extractor, SaysSettings)
        return "" if told is None else told.described

    def seen(self, image: Image.Image) -> Image.Image:
        """The picture as the extractor shall see it."""
        return image if self.size is None else adm_centre_crop(image, self.size)

    def stamp(self, data: bytes) -> str:
        """What a control's file says of its source: a hash of the picture, and the size it was cropped to."""
        return digest(data).hex() + ("" if self.size is None else f" at {size_name(self.size)}")


def controls_like(run: RunData) -> ControlsWanted:
    """Controls as a run knows them: by its own extractor, at the size of its pictures.

    Given to sampling they are what control_from=PICTURE would be. Raises UsageError for a run without.
    """
    task = run.task(device="cpu")
    extracting, sized = able(task, ExtractsControls), able(task, KnowsSides)
    if extracting is None or extracting.extract is None:
        raise UsageError(
            f"{run.folder} follows no control", fix="name a run that does, or --control EXTRACTOR"
        )
    return ControlsWanted(extracting.extract, None if sized is None else sized.pixel_size)


def extract_folder(
    source: str | Path,
    output: str | Path,
    control: str | Mapping[str, Any] | ControlsWanted,
    *,
    device: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    world: World | None = None,
) -> tuple[CacheReport, Path]:
    """The control of every picture of a folder, or of one picture, as PNG files of the same names.

    control: an extractor by name or section, which sees each picture at its own size, or `ControlsWanted`.
    Files that this extractor made of the same picture are kept. Returns what was done, and a sheet.
    """
    world = world or World.single()
    wanted = control if isinstance(control, ControlsWanted) else ControlsWanted.of(control)
    folder = Path(output)
    wanted.extractor.to(chosen_device(device))
    root, files = _pictures(Path(source).expanduser())
    _require_free(root, folder, single=Path(source).expanduser().is_file())
    world.wait()  # nobody writes while others look whether the places are free
    mine = world.every(list(enumerate(files)))
    own = world.together(lambda: _extract_all(root, mine, folder, wanted, progress))
    parts = world.gather(own)
    shown = [pair for _, pair in sorted((one for part in parts for one in part.shown), key=_place)[:SHOWN]]
    bad = [line for part in parts for line in part.bad]
    if not shown:
        raise DataError("not one picture could be read", where=str(source), why="; ".join(bad[:3]))
    built = sum(part.built for part in parts)
    report = CacheReport(len(files), len(files) - built - len(bad), built, bad)
    return report, world.on_first(lambda: save_sheet(shown, folder / SHEET))


class _Extracted(NamedTuple):
    """What one process has made of its share. shown: pairs for the sheet, each after its file's number."""

    built: int
    bad: list[str]
    shown: list[tuple[int, tuple[Tensor, Tensor]]]


def _place(one: tuple[int, tuple[Tensor, Tensor]]) -> int:
    return one[0]


def _extract_all(
    root: Path,
    files: Sequence[tuple[int, str]],
    folder: Path,
    wanted: ControlsWanted,
    progress: Callable[[int, int], None] | None,
) -> _Extracted:
    built = 0
    bad: list[str] = []
    shown: list[tuple[int, tuple[Tensor, Tensor]]] = []
    for done, (number, name) in enumerate(files, 1):
        try:
            target = (folder / name).with_suffix(".png")
            made, pair = _extract(root / name, target, wanted, len(shown) < SHOWN)
            built += made
            shown += [(number, pair)] if pair is not None else []
        except DataError as error:
            bad.append(one_line(error))
        if progress is not None:
            progress(done, len(files))
    return _Extracted(built, bad, shown)


def _pictures(source: Path) -> tuple[Path, list[str]]:
    if source.is_file():
        return source.parent, [source.name]
    listing = list_images(source)
    return listing.root, list(_unique(listing.files[:]))


def _require_free(root: Path, folder: Path, *, single: bool) -> None:
    """Refuse a folder that holds anything but controls and their sheet, or that is the source."""
    if not single:
        require_apart(root, folder)
    claim_folder(folder, what="controls", is_ours=_holds_controls)


def _holds_controls(folder: Path) -> bool:
    """Whether extractors made all that lies in a folder; what is hidden is nobody's."""
    files = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return all(path.name.startswith(".") or _is_control(path) for path in files)


def _is_control(path: Path) -> bool:
    return path.suffix == ".png" and (EXTRACTOR in control_facts(path) or is_overview(path))


def _unique(names: list[str]) -> Iterator[str]:
    """Refuse two pictures whose controls would be one file."""
    seen: dict[Path, str] = {}
    for name in names:
        other = seen.setdefault(Path(name).with_suffix(""), name)
        if other != name:
            raise DataError(f"{other} and {name} would have one control", fix="rename one of them")
        yield name


def _extract(
    source: Path, target: Path, wanted: ControlsWanted, show: bool
) -> tuple[bool, tuple[Tensor, Tensor] | None]:
    """Whether a control had to be made, and picture and control as squares for the sheet."""
    data = read_file(source)
    image = wanted.seen(decode_image(data, where=str(source)))
    maker, stamp = wanted.extractor.fingerprint, wanted.stamp(data)
    facts = control_facts(target)
    made = (facts.get(EXTRACTOR), facts.get(SOURCE)) != (maker, stamp)
    if made:
        control = wanted.extractor(to_tensor(image)[None])[0]
        write_file(target, control_png(control, extractor=maker, source=stamp, settings=wanted.described))
    if not show:
        return made, None
    both = [image, decode_image(read_file(target), where=str(target))]
    squares = [to_tensor(adm_centre_crop(one, SHEET_SIDE)) for one in both]
    return made, (squares[0], squares[1])
