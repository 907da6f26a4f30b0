"""What somebody who uses the library by hand looks at: logs, single pictures, and words about own parts."""

from __future__ import annotations

import ast
import base64
import os
import re
import shutil
from pathlib import Path
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
from genzoo.pictures.grid import make_grid


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


def test_a_run_shows_its_state_last_numbers_and_newest_picture(trained: Run, tmp_path: Path) -> None:
    folder = shutil.copytree(trained.folder, tmp_path / "a<b>&c")
    run = genzoo.load_run(folder)
    shutil.rmtree(folder / "samples", ignore_errors=True)
    for age, name in ((30, "step_00000003"), (20, "other"), (10, "seed_1")):
        written = make_grid(torch.full((2, 1, 8, 8), 8 * age, dtype=torch.uint8)).save(
            folder / "samples" / name / "grid.png"
        )
        os.utime(written, (1e9 - age, 1e9 - age))
    shown = run._repr_html_()
    assert "a&lt;b&gt;&amp;c" in shown
    assert "<b>" not in shown
    assert f"finished, step {run.step} of {run.step}" in shown
    assert f"{run.metrics()[-1]['loss']:.4g}" in shown
    picture = re.search('data:image/png;base64,([^"]+)', shown)
    assert picture is not None
    assert base64.b64decode(picture[1]) == (folder / "samples/seed_1/grid.png").read_bytes()
    (folder / "status.json").write_text("{")
    assert "status.json" in run._repr_html_()  # damaged: told, not raised


def test_a_file_without_a_history_is_shown_too() -> None:
    shown = genzoo.load_run("assets:dim_emoji")._repr_html_()
    assert "dim_emoji" in shown
    assert "<img" not in shown


def test_data_sets_are_looked_into_by_index(trained: Run) -> None:
    data = trained.dataset()
    assert torch.equal(data[1]["pixels"], data.fetch(1)["pixels"])
    assert torch.equal(data[-1]["pixels"], data.fetch(len(data) - 1)["pixels"])
    assert sum(1 for _ in data) == len(data)
    with pytest.raises(IndexError):
        data[len(data)]


def test_every_class_with_items_has_an_index() -> None:
    """Whatever has `fetch(index, generator)` is looked into by `[i]`, but for seams and private helpers."""
    found = {}
    for path in Path(genzoo.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and any(_is_fetch(part) for part in node.body):
                found[node.name] = [ast.unparse(base) for base in node.bases]
    public = {name: bases for name, bases in found.items() if not name.startswith("_")}
    assert len(public) >= 14
    assert [name for name, bases in public.items() if not {"Indexed", "Protocol"} & set(bases)] == []


def _is_fetch(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == "fetch" and len(node.args.args) == 3


def test_a_recipe_is_made_of_a_mapping(trained: Run, tmp_path: Path) -> None:
    recipe = genzoo.recipe_from({**trained.recipe.data, "name": "by_hand"})
    assert genzoo.train(recipe, output=tmp_path / "run").step == trained.step
    with pytest.raises(UsageError, match=r"genzoo\.recipe_from"):
        genzoo.train({"name": "by_hand"})  # type: ignore[arg-type]
