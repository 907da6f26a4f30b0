"""Weights in and out: a run becomes a file, and a file of another project becomes a run."""

import json
from pathlib import Path

import pytest
import torch
from recipe_cases import TINY
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from genzoo.api.run import Run, load_run
from genzoo.api.runs.conversion import convert, export
from genzoo.core.errors import UsageError, WeightsError
from genzoo.core.recipe import recipe_from


@pytest.fixture
def recipe_file(tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(recipe_from(TINY).to_yaml())
    return str(path)


def test_exported_weights_are_those_that_sampling_uses(trained: Run, tmp_path: Path) -> None:
    path = export(trained, tmp_path / "weights.safetensors")
    stored = load_file(path)
    expected = trained.task(weights="ema").model.state_dict()
    assert stored.keys() == expected.keys()
    assert all(torch.equal(stored[key], expected[key]) for key in expected)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["genzoo_model"]) == trained.recipe.section("model")
    assert (metadata["genzoo_step"], metadata["genzoo_weights"]) == ("6", "ema")
    half = load_file(export(trained, tmp_path / "half.safetensors", weights="raw", half=True))
    assert {tensor.dtype for tensor in half.values()} == {torch.float16}


def test_a_foreign_file_becomes_a_run_that_samples_the_same(
    trained: Run, tmp_path: Path, recipe_file: str
) -> None:
    foreign = export(trained, tmp_path / "foreign.safetensors", layout="dit")
    # the tensors do not show how many heads share the width
    stored, conversion = convert(foreign, tmp_path / "run", recipe=recipe_file, arguments={"num_heads": 2})
    run = Run(stored)
    assert conversion.model == "dit"
    assert {entry for entry, _, _ in conversion.report} == set(load_file(foreign))
    assert torch.equal(run.sample(num=3).pixels, trained.sample(num=3).pixels)
    assert torch.equal(run.sample(num=3, weights="raw").pixels, trained.sample(num=3).pixels)
    assert run.step == 0
    with pytest.raises(UsageError, match="holds a run"):
        convert(foreign, tmp_path / "run", recipe=recipe_file, arguments={"num_heads": 2})


def test_files_of_nobody_are_refused(tmp_path: Path, trained: Run) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"layer.weight": torch.zeros(2, 3)}, path)
    with pytest.raises(WeightsError, match="cannot tell whose"):
        convert(path, tmp_path / "run")
    with pytest.raises(UsageError, match="did you mean 'dit'"):
        export(trained, tmp_path / "x.safetensors", layout="dut")
    assert not (tmp_path / "run").exists()


def test_a_converted_run_needs_no_data(trained: Run, tmp_path: Path) -> None:
    data = TINY | {"data": {"name": "image_folder", "root": "???"}}
    path = tmp_path / "without_data.yaml"
    path.write_text(recipe_from(data).to_yaml())
    foreign = export(trained, tmp_path / "foreign.safetensors", layout="dit")
    convert(foreign, tmp_path / "run", recipe=str(path), arguments={"num_heads": 2})
    assert load_run(tmp_path / "run").sample(num=2).pixels.shape == (2, 1, 8, 8)
