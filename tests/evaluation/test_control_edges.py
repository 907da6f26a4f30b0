"""Edges of samples against their controls, on a case whose F1 can be counted by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from genzoo.api.sampling.samples import Samples
from genzoo.core.errors import DataError, UsageError
from genzoo.core.node import Node
from genzoo.data.emoji import Emoji
from genzoo.evaluation.control_edges import agreement, as_seen, control_edges


def line(column: int, num: int = 1) -> Tensor:
    """A white vertical line on black, (num, 3, 64, 64)."""
    pixels = torch.full((num, 3, 64, 64), -1.0)
    pixels[..., column] = 1.0
    return pixels


class LineRun:
    """A run that draws its control one pixel aside, or column 40; the edges of emoji are column 10."""

    def __init__(self, folder: Path, dataset: Any, **data: Any) -> None:
        self.folder, self._dataset = folder, dataset
        self.plan = SimpleNamespace(data=Node("emoji", data))
        self.asked: list[dict[str, Any]] = []

    def dataset(self) -> Any:
        return self._dataset

    def task(self) -> Any:
        codec = SimpleNamespace(moments=lambda x: x, sums=lambda x: [x], decode=lambda x: x)
        return SimpleNamespace(extract=self.extract, codec=codec)

    def extract(self, pixels: Tensor) -> Tensor:
        is_drawing = bool((pixels.amin(dim=(1, 2, 3)) == -1).all() and (pixels == pixels[:1, :, :1]).all())
        return pixels if is_drawing else line(10, len(pixels))

    def sample(self, *, class_labels: list[int], seed: int, control: Tensor | None = None) -> Samples:
        self.asked.append({"labels": class_labels, "seed": seed, "control": control})
        drawn = line(40, len(class_labels))
        return Samples(drawn if control is None else control.roll(1, dims=-1))


def emoji(**options: Any) -> Emoji:
    return Emoji(styles=["fluent_flat"], **options)


def test_a_case_counted_by_hand() -> None:
    control = line(10)
    found = line(11)
    found[..., :32, 30] = 1.0
    result = agreement(found, control, tolerance=1)
    # 64 of 96 found pixels lie beside the line, and all of the line is found
    assert result.precision == pytest.approx(64 / 96)
    assert result.recall == 1.0
    assert result.f1 == pytest.approx(2 * (2 / 3) / (2 / 3 + 1))
    assert agreement(line(12), control, tolerance=1).f1 == 0.0


def test_samples_are_compared_on_unseen_classes(tmp_path: Path) -> None:
    lists = {"exclude_classes": ["Food & Drink", "Objects"]}
    run = LineRun(tmp_path, emoji(**lists), styles=["fluent_flat"], **lists)
    result = control_edges(run, num=5, shown=3)
    assert (result["f1"], result["f1_uncontrolled"]) == (1.0, 0.0)
    assert result["classes"] == "Food & Drink + Objects"
    with_control, without = run.asked
    assert with_control["labels"] == without["labels"]
    assert set(with_control["labels"]) == {2, 3}
    assert (with_control["seed"], with_control["control"].shape) == (without["seed"], (5, 3, 64, 64))
    assert without["control"] is None
    assert Path(result["picture"]).is_file()


def test_training_on_all_classes_leaves_none_unseen(tmp_path: Path) -> None:
    run = LineRun(tmp_path, emoji(), styles=["fluent_flat"])
    with pytest.raises(DataError, match="none is unseen"):
        control_edges(run, num=4)
    assert control_edges(run, num=4, classes="all")["num"] == 4


def test_wrong_options_are_named(tmp_path: Path) -> None:
    run = LineRun(tmp_path, emoji(exclude_classes=["Objects"]), exclude_classes=["Objects"])
    with pytest.raises(UsageError, match="classes is 'some'"):
        control_edges(run, classes="some")
    with pytest.raises(UsageError, match="num is 4000"):
        control_edges(run, num=4000, classes="all")


def test_samples_are_judged_as_files_hold_them() -> None:
    levels = torch.arange(256) / 127.5 - 1
    assert torch.allclose(as_seen(levels), levels, atol=1e-6)
