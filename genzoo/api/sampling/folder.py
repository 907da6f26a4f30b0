"""Samples as files: any number of them, in any number of processes, and again after an interruption.

Each picture is a file of its own, and each clip a folder of frames, a film or an animation, written in one
step, so what exists is complete. samples.json says what the folder holds before the first picture is written
(`claim.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from genzoo.api.sampling.beside import grid_beside
from genzoo.api.sampling.claim import claim, claimed_samples, describe
from genzoo.api.sampling.class_names import captions_of
from genzoo.api.sampling.plan import SamplePlan, sample_block
from genzoo.core.contracts.tasks import makes_clips
from genzoo.core.errors import UsageError
from genzoo.core.files import write_file
from genzoo.core.processes import World
from genzoo.pictures.animation import FPS, check_fps, contact_sheet, make_animation, require_pyav
from genzoo.pictures.clip_files import read_clip, read_picture, write_clip
from genzoo.pictures.pixels import png, to_pil, to_uint8

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.core.types import Task

GRID_MAX = 100
CLIPS_MAX = 16
Progress = Callable[[int, int], None]
"""(pictures done by this process, pictures it has to do)."""


PICTURE = ".png"
CLIP_FORMATS = {"frames": "", "mp4": ".mp4", "gif": ".gif"}
"""How a clip is written -> the suffix of its file; a folder of frames has none."""


def file_name(index: int, suffix: str = PICTURE) -> str:
    """The file of one sample; of a clip as frames, the folder."""
    return f"{index:06d}{suffix}"


def suffix_of(task: Task, clip_format: str) -> str:
    """The suffix of this task's samples. Raises UsageError for a format that it cannot have."""
    if clip_format not in CLIP_FORMATS:
        raise UsageError(f"clip_format is {clip_format!r}", fix=f"use one of {', '.join(CLIP_FORMATS)}")
    if not makes_clips(task):
        if clip_format != "frames":
            raise UsageError("clip_format was given, but the samples are pictures", fix="leave it out")
        return PICTURE
    if clip_format == "mp4":
        require_pyav()  # now, and not after an hour of sampling
    return CLIP_FORMATS[clip_format]


def write_samples(
    task: Task,
    plan: SamplePlan,
    folder: Path,
    *,
    settings: Mapping[str, Any],
    batch_size: int,
    world: World,
    clip_format: str = "frames",
    fps: float = FPS,
    progress: Progress | None = None,
) -> int:
    """Make the pictures that are missing and belong to this process; returns how many were made.

    batch_size: pictures computed before they are written together; memory grows with it and not with `num`.
    clip_format: of clips, "frames" (a folder of PNGs, exact), "mp4" or "gif" (both lossy).   fps: theirs.
    The process that finds the folder complete writes grid.png, and grid.gif of clips, or grid.mp4 of films.
    """
    check_fps(fps)
    suffix = suffix_of(task, clip_format)
    if suffix in (".mp4", ".gif"):
        settings = {**settings, "fps": fps}
    paths = [folder / file_name(index, suffix) for index in range(plan.num)]
    content = describe(plan, settings, [path.name for path in paths])
    listed = claimed_samples(folder, content)
    blocks = world.every(plan.blocks())
    missing = [block for block in blocks if not all(paths[i].exists() for i in block)]
    total, done = sum(map(len, missing)), 0
    for group in _groups(missing, batch_size):
        made = torch.cat([to_uint8(sample_block(task, plan, block)) for block in group])
        if listed < plan.num:  # not before something was made: what cannot be sampled blocks no folder
            claim(folder, content)
            listed = plan.num
        for index, image in zip([i for block in group for i in block], made, strict=True):
            write_sample(paths[index], image, fps=fps)
        done += sum(map(len, group))
        if progress is not None:
            progress(done, total)
    more = [folder / file_name(index, suffix) for index in range(plan.num, listed)]
    if all(path.exists() for path in paths):
        # an earlier call may have made more
        shown = (paths + more if all(path.exists() for path in more) else paths)[: _shown(suffix)]
        rows = content["samples"][: len(shown)]
        labels = [row["class_labels"] for row in rows if "class_labels" in row]
        captions = captions_of({"class_labels": labels}, content.get("classes", {}))
        write_grid(
            folder,
            torch.stack([_read_sample(path) for path in shown]),
            fps=fps,
            film=suffix == ".mp4",
            captions=captions if captions and len(captions) == len(shown) else None,
            conditions={name: rows[: len(shown)] for name, rows in plan.conditions.items()},
        )
    return total


def save_samples(
    folder: Path, images: Tensor, conditions: Mapping[str, Any], settings: Mapping[str, Any]
) -> Path:
    """Samples in memory as the same files that `write_samples` makes.   images: uint8."""
    listed = {key: list(value) for key, value in conditions.items()}
    plan = SamplePlan(len(images), int(settings.get("seed", 0)), listed)
    suffix = CLIP_FORMATS["frames"] if images.ndim == 5 else PICTURE
    claim(folder, describe(plan, settings, [file_name(index, suffix) for index in range(plan.num)]))
    for index, image in enumerate(images):
        write_sample(folder / file_name(index, suffix), image)
    write_grid(
        folder,
        images[: _shown(suffix)],
        captions=captions_of(conditions, settings.get("classes", {})),
        conditions={name: rows[: _shown(suffix)] for name, rows in conditions.items()},
    )
    return folder


def write_sample(path: Path, pixels: Tensor, *, fps: float = FPS) -> None:
    """One picture (c, h, w) or one clip (f, c, h, w), uint8; a clip that is there already stays."""
    if pixels.ndim == 3:
        write_file(path, png(to_pil(pixels)))
    elif not path.exists():
        write_clip(path, pixels, fps=fps)


def write_grid(
    folder: Path,
    images: Tensor,
    *,
    columns: int | None = None,
    fps: float = FPS,
    film: bool = False,
    captions: Sequence[str] | None = None,
    conditions: Mapping[str, Any] | None = None,
) -> Path:
    """grid.png of pictures (n, c, h, w); of clips (n, f, c, h, w) also grid.gif or grid.mp4.

    captions: of each picture; clips show none.   conditions: of each; controls are shown. Returns the PNG.
    """
    if images.ndim == 4:
        grid = grid_beside(images, conditions or {}, columns=columns, captions=captions)
        return grid.save(folder / "grid.png")
    make_animation(images, columns=columns, fps=fps).save(folder / ("grid.mp4" if film else "grid.gif"))
    return contact_sheet(images, columns=columns).save(folder / "grid.png")


def _shown(suffix: str) -> int:
    return GRID_MAX if suffix == PICTURE else CLIPS_MAX


def _groups(blocks: list[range], batch_size: int) -> Iterator[list[range]]:
    group: list[range] = []
    for block in blocks:
        if group and sum(map(len, group)) + len(block) > batch_size:
            yield group
            group = []
        group.append(block)
    if group:
        yield group


def _read_sample(path: Path) -> Tensor:
    return read_picture(path) if path.suffix == PICTURE else read_clip(path)
