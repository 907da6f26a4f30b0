"""Samples as files: any number of them, in any number of processes, and again after an interruption.

Each picture is a file of its own, written in one step, so a file that exists is complete. samples.json says
what the folder holds before the first picture is made; a second call with other settings is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from genzoo.api.samples import Samples, make_grid, png, to_pil, to_uint8, write_atomically
from genzoo.api.sampling import SamplePlan, plain_conditions, sample_block
from genzoo.core.errors import DataError, UsageError

if TYPE_CHECKING:
    from genzoo.core.types import Task

GRID_MAX = 100
Progress = Callable[[int, int], None]
"""(pictures done by this process, pictures it has to do)."""


@dataclass(frozen=True)
class Worker:
    """One of the processes that share the indices."""

    rank: int = 0
    world: int = 1

    @classmethod
    def from_environment(cls) -> Worker:
        """As torchrun numbers its processes; alone without torchrun."""
        return cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))


def file_name(index: int) -> str:
    """The file of one sample."""
    return f"{index:06d}.png"


def write_samples(
    task: Task,
    plan: SamplePlan,
    folder: Path,
    *,
    settings: Mapping[str, Any],
    batch_size: int,
    worker: Worker,
    progress: Progress | None = None,
) -> int:
    """Make the pictures that are missing and belong to this worker; returns how many were made.

    batch_size: pictures computed before they are written together; memory grows with it and not with `num`.
    The worker that finds the folder complete writes grid.png.
    """
    claim(folder, plan, settings)
    blocks = [block for number, block in enumerate(plan.blocks()) if number % worker.world == worker.rank]
    missing = [block for block in blocks if not all((folder / file_name(i)).is_file() for i in block)]
    total, done = sum(map(len, missing)), 0
    for group in _groups(missing, batch_size):
        images = [to_uint8(sample_block(task, plan, block)) for block in group]
        for index, image in zip([i for block in group for i in block], torch.cat(images), strict=True):
            write_atomically(folder / file_name(index), png(to_pil(image)))
        done += sum(map(len, group))
        if progress is not None:
            progress(done, total)
    if all((folder / file_name(index)).is_file() for index in range(plan.num)):
        write_atomically(folder / "grid.png", png(_folder_grid(folder, plan.num)))
    return total


def save_samples(samples: Samples, folder: Path) -> Path:
    """Samples in memory as the same files that `write_samples` makes."""
    conditions = {key: list(value) for key, value in samples.conditions.items()}
    plan = SamplePlan(len(samples), int(samples.settings.get("seed", 0)), conditions)
    claim(folder, plan, samples.settings)
    images = samples.images
    for index, image in enumerate(images):
        write_atomically(folder / file_name(index), png(to_pil(image)))
    make_grid(images[:GRID_MAX]).save(folder / "grid.png")
    return folder


def claim(folder: Path, plan: SamplePlan, settings: Mapping[str, Any]) -> None:
    """Write samples.json, or check that the folder was begun with the same settings. Raises UsageError."""
    content = describe(plan, settings)
    path = folder / "samples.json"
    if path.is_file():
        _check_same(path, content)
        return
    if folder.exists() and any(folder.glob("[0-9]*.png")):
        raise UsageError(f"{folder} holds pictures but no samples.json", fix="name another folder")
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def describe(plan: SamplePlan, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The content of samples.json: settings, then file and condition of every index."""
    rows = [{"file": file_name(i), **plain_conditions(plan.conditions, i)} for i in range(plan.num)]
    return json.loads(json.dumps({"format": 1, **settings, "num": plan.num, "samples": rows}, default=str))


def _check_same(path: Path, content: dict[str, Any]) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read", why=str(error), fix="name another folder") from error
    names = sorted({*content, *found}) if isinstance(found, dict) else ["format"]
    other = [name for name in names if not isinstance(found, dict) or found.get(name) != content.get(name)]
    if other:
        raise UsageError(
            f"{path.parent} holds samples made with other settings",
            why=f"differs in {', '.join(other)}",
            fix="name another folder, or delete this one",
        )


def _groups(blocks: list[range], batch_size: int) -> Iterator[list[range]]:
    group: list[range] = []
    for block in blocks:
        if group and sum(map(len, group)) + len(block) > batch_size:
            yield group
            group = []
        group.append(block)
    if group:
        yield group


def _folder_grid(folder: Path, num: int) -> Image.Image:
    images = []
    for index in range(min(num, GRID_MAX)):
        with Image.open(folder / file_name(index), formats=["PNG"]) as picture:
            array = np.array(picture)
        images.append(torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1))
    return make_grid(torch.stack(images)).image
