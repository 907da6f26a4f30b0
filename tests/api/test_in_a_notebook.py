"""What somebody who uses the library by hand looks at: logs, single pictures, and words about own parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import genzoo
from genzoo.api.recipes.build import build_dataset, build_task
from genzoo.api.recipes.plan import plan_of
from genzoo.api.run import Run
from genzoo.api.sampling.samples import Samples
from genzoo.core.errors import UsageError
from genzoo.core.recipe import with_overrides
from genzoo.core.registry import DATASETS, MODELS


class OfTorch(torch.utils.data.Dataset[Any]):
    """A map-style data set as torch has them."""

    num_classes = None  # is said, though it says that there are none

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.zeros(1, 8, 8), 0


class Plain(torch.nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(width, width)


@pytest.fixture
def own_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry, name, part in ((DATASETS, "of_torch", OfTorch), (MODELS, "plain", Plain)):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
        registry.register(name, "for this test")(part)


def test_what_training_logged_is_there_by_name(trained: Run) -> None:
    rows = trained.metrics()
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})
    assert rows[-1]["step"] == trained.step
    assert all("loss" in row for row in rows)


def test_an_open_file_logged_nothing(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert genzoo.load_run("assets:dim_emoji").metrics() == []


def test_samples_are_told_in_a_line_and_looked_at_one_by_one() -> None:
    pixels = torch.linspace(-1, 1, 3 * 2 * 4 * 5).view(3, 1, 8, 5)
    samples = Samples(pixels)
    assert repr(samples) == "Samples(3 pictures of 1 x 8 x 5)"
    last = torch.tensor(list(samples[2].image.convert("L").get_flattened_data()))
    assert torch.equal(last[-1:].to(torch.uint8), samples.images[2].flatten()[-1:])
    assert samples[-1]._repr_png_() == samples[2]._repr_png_() != samples[0]._repr_png_()
    assert len(list(samples)) == 3  # it ends, as what has an index and a length does
    with pytest.raises(IndexError):
        samples[3]
    assert repr(Samples(torch.zeros(2, 4, 3, 6, 6))) == "Samples(2 clips of 4 x 3 x 6 x 6)"


@pytest.mark.usefixtures("own_parts")
def test_a_data_set_of_torch_is_told_what_it_lacks(trained: Run) -> None:
    plan = plan_of(with_overrides(trained.recipe, ["data={name: of_torch}"]))
    with pytest.raises(UsageError, match="no sample_shape, no class_names, no fingerprint, no fetch") as told:
        build_dataset(plan)
    assert "num_classes" not in str(told.value)


@pytest.mark.usefixtures("own_parts")
def test_a_model_is_told_what_a_task_asks_of_it(trained: Run) -> None:
    recipe = with_overrides(trained.recipe, ["model={name: plain}"])
    with pytest.raises(UsageError, match="Plain has no in_channels and no input_size"):
        build_task(recipe, trained.dataset())


def test_capitals_do_not_hide_a_name() -> None:
    with pytest.raises(UsageError, match="did you mean 'dim_s4'"):
        genzoo.create_model("DIM_S4")
