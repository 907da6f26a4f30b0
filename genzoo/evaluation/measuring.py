"""From pictures or clips to the features that a protocol asks for; those of a reference are remembered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.core.errors import UsageError
from genzoo.core.reading import shown
from genzoo.data.inspection import evenly
from genzoo.data.picture_sets import PictureSet, open_pictures
from genzoo.evaluation.batches import batches
from genzoo.evaluation.extraction import Extraction, Features, extract_together, gather_features
from genzoo.evaluation.feature_blocks import BLOCK, FeatureBlocks
from genzoo.evaluation.judging import Judging
from genzoo.evaluation.reference import Reference, cached_reference, is_adm_reference, read_adm_reference
from genzoo.evaluation.scores import ROWS, WITHOUT_REFERENCE, outputs_needed
from genzoo.pretrained.known_weights import file_sha256

if TYPE_CHECKING:
    from genzoo.core.processes import World
    from genzoo.data.picture_sets import PictureSource

FORMAT = 2  # of what is remembered, and of the reader that it was read with
CLIP_SHARE = 8  # a clip takes the memory of many pictures


def features_of(
    pictures: PictureSet,
    judging: Judging,
    what: str,
    *,
    outputs: tuple[set[str], set[str]] | None = None,
    keep: int | None = None,
) -> Features:
    """This set's features, which all processes of the world gather together.

    outputs: those whose statistics, and those whose rows are needed; what the protocol needs when left out.
    keep: rows of this many pictures only, taken at even steps, because a folder is often sorted by class.
    """
    settings, network = judging.settings, judging.network
    if outputs is None:
        outputs = outputs_needed(judging.used.metrics, intervals=settings.intervals is not None)
    statistics, rows = outputs
    world = settings.world
    most = -(-len(pictures) // world.size)
    resumable = most > BLOCK and is_remembered(judging)  # fewer are done before they could be lost
    part = part_of_blocks(len(pictures), world) if resumable else world.part(len(pictures))
    wanted = None if keep is None else set(evenly(len(pictures), keep))
    kept = None if wanted is None else [index in wanted for index in part]
    share = CLIP_SHARE if judging.used.kind == "clips" else 1
    at_once = max(1, settings.batch_size // share)
    blocks = FeatureBlocks(pictures, network, statistics | rows)
    if resumable:
        data = blocks.batches(part, batch_size=at_once, workers=settings.workers)
        whole = -(-len(pictures) // BLOCK)
        meetings = -(-whole // world.size) * -(-BLOCK // at_once) + 1
        network = blocks.watched(settings.device)
    else:
        data = batches(
            pictures, batch_size=at_once, indices=part, prepare=network.prepare, workers=settings.workers
        )
        meetings = -(-most // at_once)
    on_batch = settings.report(what, len(pictures))
    extraction = Extraction(network, statistics=statistics, rows=rows, keep=kept, on_batch=on_batch)
    found = extract_together(data, extraction, world, num_batches=meetings)
    joined = gather_features(found, world, settings.device)
    if resumable:
        blocks.clear()
    return joined


def part_of_blocks(count: int, world: World) -> range:
    """This process's contiguous part in whole blocks, the same blocks in any number of processes."""
    blocks = world.part(-(-count // BLOCK))
    return range(blocks.start * BLOCK, min(blocks.stop * BLOCK, count))


def open_reference(source: PictureSource) -> PictureSet | Path:
    """The pictures of a reference, or the path of an ADM file. What is wrong with it is said now."""
    if isinstance(source, str | Path) and is_adm_reference(source):
        read_adm_reference(source)
        return Path(source)
    return open_pictures(source)


def reference_of(opened: PictureSet | Path, judging: Judging) -> Reference:
    """The reference's statistics and rows: read from an ADM file, from the cache, or extracted."""
    statistics, rows = outputs_needed(judging.used.metrics)
    rows -= {"logits"}  # only the generated images have an Inception Score
    if isinstance(opened, Path):
        return _adm_reference(opened, judging, rows)
    pictures = opened
    judging.note(pictures, "reference")
    metrics = judging.used.metrics
    keep = rows_to_keep(metrics)
    ddof, digest = metrics.get("fvd", {}).get("ddof", 1), judging.looked_at(pictures, "reference")

    def make() -> Reference:
        found = features_of(pictures, judging, "reference", outputs=(statistics, rows), keep=keep)
        gaussians = {name: part.gaussian(ddof=ddof) for name, part in found.statistics.items()}
        return Reference(digest, gaussians, found.rows, found.count, found.constant)

    outputs = [sorted(statistics), sorted(rows)]
    return _remembered(judging, make, content=digest, outputs=outputs, ddof=ddof, rows_kept=keep)


def rows_to_keep(metrics: Mapping[str, Mapping[str, Any]]) -> int | None:
    """How many reference rows the metrics look at; None for all of them."""
    asked = [
        options.get("reference_num")
        for name, options in metrics.items()
        if name in ROWS and name not in WITHOUT_REFERENCE
    ]
    return None if not asked or None in asked else max(num for num in asked if num is not None)


def _adm_reference(path: Path, judging: Judging, rows: set[str]) -> Reference:
    if judging.network.name != "inception-2015":
        raise UsageError(
            f"{shown(path.name)} holds statistics of the 2015 Inception network, not of"
            f" {judging.network.name}",
            fix="give a folder of reference images, or use that network",
        )
    gaussians, pictures = read_adm_reference(path)
    digest, kept = file_sha256(path), {}
    if rows and pictures is not None:
        held = pictures

        def make() -> Reference:
            found = features_of(held, judging, "reference", outputs=(set(), rows))
            return Reference(digest, {}, found.rows, found.count, found.constant)

        kept = dict(_remembered(judging, make, content=digest, rows=sorted(rows)).rows)
    return Reference(digest, gaussians, kept, None)


def _remembered(judging: Judging, make: Callable[[], Reference], **key: Any) -> Reference:
    if not is_remembered(judging):
        return make()
    about = {**key, **judging.network.describe(), "format": FORMAT}
    return cached_reference(about, make, judging.settings.world)


def is_remembered(judging: Judging) -> bool:
    """Whether features may be kept: a callable without a hash may have changed since."""
    network = judging.network
    known = network.weights_sha256 is not None or network.name in ("pixels", "video-pixels")
    return judging.settings.cache and known
