"""A run as a pipeline of diffusers: the same samples, by our class and by diffusers' own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from clip_cases import CLIPS
from diffusers import DiffusionPipeline
from recipe_cases import TINY

import genzoo.pipelines
from genzoo.api.pipelines.files import pipeline_name
from genzoo.api.pipelines.write import export_pipeline
from genzoo.api.run import Run, train
from genzoo.cli import main
from genzoo.core.errors import UsageError, WeightsError
from genzoo.core.recipe import load_recipe, recipe_from

MIXER = {"depth": 2, "hidden_size": 16, "patch_size": 4, "d_state": 4, "learn_sigma": False}
AUTO = {"num_classes": "auto", "input_size": "auto", "in_channels": "auto"}
SHORT = ["train.steps=1", "train.batch_size=2", "preview=null", "report=[]", "train.tensorboard=false"]
BASES: dict[str, dict[str, Any]] = {
    "dit": TINY,
    "dim": {**TINY, "model": {"name": "dim", **MIXER, **AUTO}},
    "dim_video": {**CLIPS, "model": {"name": "dim_video", **MIXER, **AUTO, "num_frames": "auto"}},
    "matten": CLIPS,
    "latte": {
        **CLIPS,
        "model": {**{k: v for k, v in CLIPS["model"].items() if k != "d_state"}, "name": "latte"},
    },
}
NAMED = {"var": "var_emoji", "car": "quickstart/car_canny_emoji"}
OPTIONS: dict[str, dict[str, Any]] = {
    "car": {"class_labels": [2, 0], "control": torch.linspace(-1, 1, 3 * 64 * 64).reshape(3, 64, 64)},
    "var": {"class_labels": [2, 0]},
}
Written = tuple[str, Run, Path]
CLASSES = {
    "dit": "DiTPipeline",
    "dim": "DiMPipeline",
    "dim_video": "DiMVideoPipeline",
    "matten": "MattenPipeline",
    "latte": "LattePipeline",
    "var": "VARPipeline",
    "car": "CARPipeline",
}


def trained_as(name: str, folder: Path) -> Run:
    recipe = load_recipe(NAMED[name], SHORT) if name in NAMED else recipe_from(BASES[name])
    return train(recipe.replaced({"preview": None, "report": []}, "short"), output=folder)


@pytest.fixture(scope="module", params=list(CLASSES))
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    root = tmp_path_factory.mktemp(request.param)
    run = trained_as(request.param, root / "run")
    return request.param, run, export_pipeline(run, root / "pipeline")


@pytest.fixture(autouse=True)
def modules_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))


def loads(name: str, folder: Path) -> dict[str, Any]:
    own = getattr(genzoo.pipelines, CLASSES[name])
    return {
        "ours": own.from_pretrained(folder),
        "diffusers": DiffusionPipeline.from_pretrained(str(folder), trust_remote_code=True),
    }


def test_samples_equal_those_of_the_run(written: Written) -> None:
    name, run, folder = written
    options = OPTIONS.get(name, {"class_labels": [1, 3]})
    expected = run.sample(num=2, seed=5, **options)
    for way, pipeline in loads(name, folder).items():
        assert type(pipeline).__name__ == CLASSES[name], way
        found = pipeline.samples(2, seed=5, **options)
        assert torch.equal(found.pixels, expected.pixels), way
        shown = pipeline(num_images=2, seed=5, output_type="pt", return_dict=False, **options)[0]
        assert torch.equal(shown, (expected.pixels / 2 + 0.5).clamp(0, 1)), way


def test_the_command_writes_it(trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["export", str(trained.folder), str(tmp_path / "out"), "--to", "diffusers", "--json"])
    assert not stop.value.code
    found = json.loads(capsys.readouterr().out)
    assert set(found["files"]) == {
        "model_index.json",
        "pipeline.py",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "transformer/genzoo_model.py",
    }
    index = json.loads((tmp_path / "out/model_index.json").read_text())
    assert index["_class_name"] == ["pipeline", "DiTPipeline"]


def test_pictures_and_seeds_are_as_diffusers_has_them(trained: Run, tmp_path: Path) -> None:
    pipeline = genzoo.pipelines.DiTPipeline.from_pretrained(export_pipeline(trained, tmp_path / "p"))
    made = pipeline(class_labels=[1, 2], num_inference_steps=2, guidance_scale=1.0)
    assert [image.size for image in made.images] == [(8, 8)] * 2
    seeded = pipeline(3, generator=torch.Generator().manual_seed(7), output_type="np").images
    assert (seeded == pipeline(3, seed=7, output_type="np").images).all()
    assert seeded.shape == (1, 8, 8, 1)
    with pytest.raises(UsageError, match="output_type"):
        pipeline(output_type="latent")
    with pytest.raises(UsageError, match="clas_labels"):
        pipeline(clas_labels=1)


def test_a_saved_pipeline_is_loaded_again_after_its_weights_changed(trained: Run, tmp_path: Path) -> None:
    pipeline = genzoo.pipelines.DiTPipeline.from_pretrained(export_pipeline(trained, tmp_path / "p"))
    for parameter in pipeline.transformer.parameters():
        parameter.data.mul_(0.5)
    pipeline.save_pretrained(tmp_path / "q")
    again = DiffusionPipeline.from_pretrained(str(tmp_path / "q"), trust_remote_code=True)
    assert torch.equal(again.samples(2).pixels, pipeline.samples(2).pixels)
    assert not torch.equal(again.samples(2).pixels, trained.sample(num=2).pixels)


def test_halves_become_whole_numbers_again(trained: Run, tmp_path: Path) -> None:
    whole, half = (export_pipeline(trained, tmp_path / name, half=name == "half") for name in ("p", "half"))
    file = "transformer/diffusion_pytorch_model.safetensors"
    assert (half / file).stat().st_size < 0.6 * (whole / file).stat().st_size
    pipeline = genzoo.pipelines.DiTPipeline.from_pretrained(half)
    assert pipeline.transformer.dtype == torch.float32
    assert torch.isfinite(pipeline.samples(2).pixels).all()


def test_code_of_the_folder_is_run_by_diffusers_alone_and_only_when_asked(
    trained: Run, tmp_path: Path
) -> None:
    folder = export_pipeline(trained, tmp_path / "p")
    for stub in ("pipeline.py", "transformer/genzoo_model.py"):
        (folder / stub).write_text("raise SystemExit('this was run')\n")
    genzoo.pipelines.DiTPipeline.from_pretrained(folder)
    with pytest.raises(ValueError, match="trust_remote_code"):
        DiffusionPipeline.from_pretrained(str(folder))


def test_another_models_class_refuses_it(trained: Run, tmp_path: Path) -> None:
    folder = export_pipeline(trained, tmp_path / "p")
    with pytest.raises(UsageError, match="MattenPipeline samples matten"):
        genzoo.pipelines.MattenPipeline.from_pretrained(folder)
    genzoo.pipelines.GenzooPipeline.from_pretrained(folder)
    with pytest.raises(WeightsError, match="holds no pipeline"):
        genzoo.pipelines.DiTPipeline.from_pretrained(tmp_path)
    with pytest.raises(UsageError, match="did you mean 'MattenPipeline'"):
        genzoo.pipelines.MatenPipeline  # noqa: B018


def test_a_codec_of_this_machine_goes_along(tmp_path: Path) -> None:
    from genzoo.pretrained.shipped import shipped

    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(shipped("assets:vqvae_emoji/model.safetensors").read_bytes())
    recipe = load_recipe("var_emoji", [*SHORT, f"codec.weights={weights}"])
    run = train(recipe, output=tmp_path / "run")
    folder = export_pipeline(run, tmp_path / "pipeline")
    expected = run.sample(num=1, class_labels=4).pixels
    weights.unlink()
    (folder.rename(tmp_path / "moved"))
    pipeline = genzoo.pipelines.VARPipeline.from_pretrained(tmp_path / "moved")
    assert torch.equal(pipeline.samples(1, class_labels=4).pixels, expected)
    text = (tmp_path / "moved/transformer/config.json").read_text()
    assert str(tmp_path) not in text


def test_every_class_is_named_once(written: Written) -> None:
    name, run, folder = written
    assert getattr(genzoo.pipelines, pipeline_name(run)).__name__ == CLASSES[name]
    assert str(folder.parent) not in (folder / "transformer/config.json").read_text()
