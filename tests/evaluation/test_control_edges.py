"""Edges of samples against their controls, on a case whose F1 can be counted by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from genzoo.api.sampling.samples import Samples
from genzoo.core.errors import DataError, UsageError
from genzoo.core.node import Node
from genzoo.data.emoji import Emoji
from genzoo.evaluation import control_edges as module
from genzoo.evaluation.control_consistency import MEASURES, control_consistency
from genzoo.evaluation.control_edges import agreement, control_edges
from genzoo.evaluation.controlled_samples import as_seen
from genzoo.pictures.grid import make_grid


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

    def sample(
        self,
        *,
        class_labels: list[int],
        seed: int,
        control: Tensor | None = None,
        control_scale: Any = 1.0,
        **others: Any,
    ) -> Samples:
        self.asked.append({"labels": class_labels, "seed": seed, "control": control, "scale": control_scale})
        self.asked[-1] |= others
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


def test_rows_of_other_strengths_stand_between(tmp_path: Path) -> None:
    lists = {"exclude_classes": ["Food & Drink", "Objects"]}
    run = LineRun(tmp_path, emoji(**lists), styles=["fluent_flat"], **lists)
    four = Image.open(control_edges(run, num=5, shown=3)["picture"]).size
    six = Image.open(control_edges(run, num=5, shown=3, strengths=[0.5, 1.5])["picture"]).size
    assert six == (four[0], four[1] // 4 * 6)
    assert [asked["scale"] for asked in run.asked[-2:]] == [0.5, 1.5]
    assert run.asked[-1]["labels"] == run.asked[-3]["labels"][:3]


def test_controls_of_several_runs_have_a_row_of_their_own(tmp_path: Path) -> None:
    lists = {"exclude_classes": ["Food & Drink", "Objects"]}
    run = LineRun(tmp_path, emoji(**lists), styles=["fluent_flat"], **lists)
    four = Image.open(control_edges(run, num=5, shown=3)["picture"]).size
    five = Image.open(control_edges(run, num=5, shown=3, control_runs=["runs/b", "runs/c"])["picture"]).size
    assert five == (four[0], four[1] // 4 * 5)
    asked = run.asked[-1]
    assert asked["control_runs"] == ["runs/b", "runs/c"]
    assert asked["scale"] == [1 / 3] * 3
    assert asked["control_from"].shape == (3, 3, 64, 64), "each run extracts its control from the originals"


def test_consistency_of_edges_stands_beside_none_and_the_bound(tmp_path: Path) -> None:
    lists = {"exclude_classes": ["Food & Drink", "Objects"]}
    run = LineRun(tmp_path, emoji(**lists), styles=["fluent_flat"], **lists)
    run.extract = Extractor(run.extract)  # type: ignore[method-assign, assignment]
    result = control_consistency(run, num=4)
    assert result["control"] == "canny"
    assert (result["f1_exact"], result["f1_within_1"], result["f1_within_2"]) == (0.0, 1.0, 1.0)
    assert result["f1_within_2_uncontrolled"] == 0.0
    assert result["f1_exact_reconstructed"] == 1.0


class Extractor:
    fingerprint = "canny-0123"

    def __init__(self, extract: Any) -> None:
        self.extract = extract

    def __call__(self, pixels: Tensor) -> Tensor:
        return self.extract(pixels)


def test_every_kind_of_control_has_its_measure() -> None:
    maps = torch.rand(2, 3, 24, 20, generator=torch.Generator().manual_seed(0)) * 2 - 1
    same = {kind: measure(maps, maps) for kind, measure in MEASURES.items()}
    assert same["canny"]["f1_exact"] == same["sketch"]["f1_within_2"] == 1.0
    assert same["hed"] == {"ssim": pytest.approx(1.0), "mse": 0.0}
    assert same["depth"] == {"rmse": 0.0, "rmse_aligned": pytest.approx(0.0, abs=1e-6)}
    assert same["normal"]["within_11.25"] == 1.0
    other = MEASURES["hed"](maps, -maps)
    assert other["ssim"] < 0.5
    assert MEASURES["depth"](maps, -maps)["rmse_aligned"] > 10


def test_the_class_is_judged_by_pictures_other_than_the_originals(tmp_path: Path) -> None:
    run = LineRun(tmp_path, emoji(), styles=["fluent_flat"])
    plain = control_edges(run, num=6, classes="all", shown=2)
    assert "accuracy" not in plain
    run.sample = lambda **asked: Samples(  # type: ignore[method-assign]
        control_of(run, len(asked["class_labels"]))
        if "control" in asked
        else line(40, len(asked["class_labels"]))
    )
    found = control_edges(run, num=6, classes="all", shown=2, k=1)
    assert found["accuracy"] == found["accuracy_originals"], "samples that are the originals are judged alike"
    assert found["accuracy"] < 1, "an original would be its own nearest picture"
    assert 0 <= found["accuracy_uncontrolled"] <= 1


def control_of(run: LineRun, num: int) -> Tensor:
    data = run.dataset()
    return torch.stack([data.fetch(index * len(data) // num)["pixels"] for index in range(num)])


def test_every_picture_is_captioned_by_its_own_class_or_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def noted(*arguments: Any, captions: list[str], **options: Any) -> Any:
        said.extend(captions)
        return make_grid(*arguments, captions=captions, **options)

    monkeypatch.setattr(module, "make_grid", noted)
    lists = {"exclude_classes": ["Food & Drink", "Objects"]}
    run = LineRun(tmp_path, emoji(**lists), styles=["fluent_flat"], **lists)
    control_edges(run, num=6, shown=4, strengths=[1.5])
    rows = [said[first : first + 4] for first in range(0, len(said), 4)]
    assert rows[0] == [emoji().class_names[label] for label in run.asked[-1]["labels"]]
    assert [set(row) for row in rows[1:]] == [{"strength 1.5"}, {"strength 1"}, {"strength 0"}, {"original"}]
