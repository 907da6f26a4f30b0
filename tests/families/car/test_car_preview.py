"""Pictures during training take what steers a task from its data."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from families.car.tiny import NUM_CLASSES, pictures, tiny_car, tiny_task, tiny_var, tiny_vqvae
from PIL import Image

from genzoo.api.recipes.sections import Preview
from genzoo.api.training.preview_hook import options_from_data, preview_function
from genzoo.core.processes import World
from genzoo.families.car.vqvae.task import VQVAETask

CELL = 36


class Pictures:
    """Six random pictures."""

    class_names = None

    def __len__(self) -> int:
        return 6

    def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        return {"pixels": pictures(1, seed=index)[0], "class_labels": torch.tensor(index % NUM_CLASSES)}


def drawn(task: Any, folder: Path, **preview: Any) -> np.ndarray[Any, Any]:
    """The grid of a preview at step 5: cells of 36, of which 32 are the enlarged picture."""
    trainer: Any = SimpleNamespace(
        stop_requested=False,
        task=task,
        dataset=Pictures(),
        is_main=True,
        world=World.single(),
        folder=SimpleNamespace(samples=folder),
        recorders=(),
    )
    preview_function(Preview(**preview), block_size=2)(trainer, 5)
    return np.asarray(Image.open(folder / "step_00000005/grid.png").convert("L"))


def bright(pixels: torch.Tensor) -> torch.Tensor:
    """White, or black for pictures that are dark on the whole."""
    level = pixels.mean(dim=(1, 2, 3), keepdim=True).sign()
    return level.expand_as(pixels).contiguous()


def test_controls_come_from_items_spread_over_the_data(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, tiny_car(), control=bright)
    options = options_from_data(task, Pictures(), 3)  # type: ignore[arg-type]
    assert options["class_labels"].tolist() == [0, 2, 4]
    expected = bright(torch.cat([pictures(1, seed=index) for index in (0, 2, 4)]))
    assert torch.equal(options["control"], expected)


def test_a_grid_shows_each_control_above_its_sample(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, tiny_car(), control=lambda pixels: -torch.ones_like(pixels))
    grid = drawn(task, tmp_path, num=3, columns=2)
    assert grid.shape == (4 * CELL, 2 * CELL)  # two rows of samples, each below its controls
    assert grid[18, 18] == grid[18, CELL + 18] == grid[2 * CELL + 18, 18] == 0
    assert grid[2 * CELL + 18, CELL + 18] == 255  # the third sample stands alone in its row


def test_given_labels_stand_above_those_of_the_data(tmp_path: Path) -> None:
    labels: list[Any] = []
    task = tiny_task(tmp_path, tiny_car(), control=bright)
    conditions = task.conditions
    task.conditions = lambda num, class_labels=None, control=None: (  # type: ignore[method-assign]
        labels.append(class_labels) or conditions(num, class_labels, control)
    )
    drawn(task, tmp_path, num=2, class_labels=[3, 3])
    assert labels == [[3, 3]]


def test_without_a_control_nothing_is_taken_from_the_data(tmp_path: Path) -> None:
    assert options_from_data(tiny_task(tmp_path, tiny_var()), Pictures(), 2) == {}  # type: ignore[arg-type]
    grid = drawn(tiny_task(tmp_path, tiny_var()), tmp_path, num=2, columns=2)
    assert grid.shape == (CELL, 2 * CELL)


@pytest.mark.parametrize("num", [1, 4])
def test_a_vqvae_shows_reconstructions_below_pictures(tmp_path: Path, num: int) -> None:
    grid = drawn(VQVAETask(tiny_vqvae()), tmp_path, num=num, columns=4)
    first = np.asarray((pictures(1)[0] * 127.5 + 128).clamp(0, 255).byte().movedim(0, -1))
    assert grid[2, 2] == np.asarray(Image.fromarray(first).convert("L"))[0, 0]
    assert grid.shape == (2 * CELL, num * CELL)
