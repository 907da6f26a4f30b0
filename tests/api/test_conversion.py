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
    with pytest.raises(UsageError, match="holds files already"):
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


FLOW = {"name": "flow_matching", "time_scale": 1.0}


def test_weights_of_a_flow_are_read_by_naming_their_layout(trained: Run, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.safetensors"
    save_file(load_file(export(trained, tmp_path / "own.safetensors", layout="dit")), foreign)
    recipe = tmp_path / "flow.yaml"
    sampler = {"name": "flow_euler", "steps": 3, "block_size": 4}
    recipe.write_text(recipe_from({**TINY, "task": FLOW, "sampler": sampler}).to_yaml())
    options = {"recipe": str(recipe), "layout": "sit", "arguments": {"num_heads": 2}}
    stored, conversion = convert(foreign, tmp_path / "run", **options)
    assert conversion.model == "dit"
    run = Run(stored)
    assert run.sample(num=2).pixels.shape == (2, 1, 8, 8)
    back = load_file(export(run, tmp_path / "back.safetensors", layout="sit"))
    assert all(torch.equal(tensor, back[key]) for key, tensor in load_file(foreign).items())
    # the file itself looks like DiT's, and is still taken for it
    assert convert(foreign, tmp_path / "dit", recipe=_latent(tmp_path), arguments={"num_heads": 2})


def _latent(folder: Path) -> str:
    path = folder / "latent.yaml"
    path.write_text(recipe_from(TINY).to_yaml())
    return str(path)


@pytest.mark.parametrize(
    ("layout", "task", "seen"),
    [
        ("sit", TINY["task"], "name: 'latent_diffusion'"),
        ("sit", {"name": "flow_matching"}, "time_scale: 1000.0"),
        ("sit", {**FLOW, "path": "gvp"}, "path: 'gvp'"),
        ("dit", FLOW, "name: 'flow_matching'"),
    ],
    ids=str,
)
def test_a_task_that_reads_the_weights_otherwise_is_refused(
    trained: Run, tmp_path: Path, layout: str, task: dict[str, object], seen: str
) -> None:
    foreign = export(trained, tmp_path / "foreign.safetensors", layout="dit")
    sampler = {"name": "flow_euler"} if task["name"] == "flow_matching" else TINY["sampler"]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipe_from({**TINY, "task": task, "sampler": sampler}).to_yaml())
    with pytest.raises(UsageError, match="belong to another task") as caught:
        convert(foreign, tmp_path / "run", recipe=str(recipe), layout=layout, arguments={"num_heads": 2})
    assert seen in str(caught.value)
    assert not (tmp_path / "run").exists()
