"""`prepare controls` for a recipe and for a folder, and a run that remembers its extractor."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from data.hostile_images import photo
from families.car.tiny import SIZES, pictures, saved, tiny_car, tiny_codec, tiny_vqvae
from PIL import Image

import genzoo
from genzoo.api.preparation.control_folder import extract_folder
from genzoo.api.preparation.controls import prepare_controls
from genzoo.cli import main
from genzoo.core.checkpoint import latest_valid, load_checkpoint
from genzoo.core.errors import CheckpointError, DataError, UsageError
from genzoo.core.recipe import Recipe, load_recipe
from genzoo.data.control_files import control_facts, control_png
from genzoo.data.picture_sets import open_pictures
from genzoo.families.car.task import NextScaleTask


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(4):
        path = tmp_path / "pictures" / f"class{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(24 + i, 20).save(path)
    return tmp_path


def car_recipe(folder: Path, *overrides: str) -> Recipe:
    weights = saved(tiny_vqvae(), folder / "vqvae.safetensors")
    model = {**SIZES, "patch_nums": "[1,2,4]", "control_channels": "[4,6]", "var_weights": "null"}
    settings = {
        "data.root": folder / "pictures", "data.image_size": 8, "data.controls": folder / "controls",
        "data.crop": "official_centre",  # what is stored was seen centrally
        "codec.weights": weights, "codec.patch_nums": "[1,2,4]", "train.steps": 2, "train.batch_size": 2,
        "train.num_workers": 0, "train.precision": "fp32", "train.tensorboard": "false",
        "train.log_every": 1, "sampler.top_k": 12,
    }  # fmt: skip
    words = [f"{key}={value}" for key, value in settings.items()]
    words += [f"model.{key}={value}" for key, value in model.items()]
    return load_recipe("car_canny", [*words, *overrides])


def test_controls_of_a_recipe_are_extracted_trained_on_and_remembered(folder: Path) -> None:
    recipe = car_recipe(folder)
    with pytest.raises(DataError, match="prepare controls"):
        genzoo.train(recipe, output=folder / "run")
    report, sheet = prepare_controls(recipe)
    assert (report.built, report.reused) == (4, 0)
    assert prepare_controls(recipe)[0].reused == 4
    assert Image.open(sheet).size[0] > Image.open(sheet).size[1] / 2
    run = genzoo.train(recipe, output=folder / "run")
    recorded = load_checkpoint(latest_valid(run.folder / "checkpoints")).state["facts"]
    assert recorded["control extractor"] == run.task().extract.fingerprint
    assert run.dataset().fetch(0)["pixels"].shape == (3, 8, 8)
    changed = folder / "changed"
    changed.mkdir()
    text = (run.folder / "recipe.yaml").read_text()
    (changed / "recipe.yaml").write_text(text.replace("control: canny", "control: {name: canny, low: 7}"))
    shutil.copytree(run.folder / "checkpoints", changed / "checkpoints")
    with pytest.raises(CheckpointError, match="control extractor is not the one"):
        genzoo.load_run(changed).sample(class_labels=1, control_from=pictures(1))
    with pytest.raises(DataError, match="another extractor"):
        genzoo.train(car_recipe(folder, "task.control={name: canny, low: 7}"), output=folder / "other")


def test_a_folder_becomes_png_files_that_sampling_checks(folder: Path, capsys: pytest.CaptureFixture) -> None:
    words = [str(folder / "pictures"), "low=50", "--control", "canny", "--output", str(folder / "edges")]
    with pytest.raises(SystemExit) as end:
        main(["prepare", "controls", *words])
    assert end.value.code == 0
    assert "4 pictures: 4 extracted, 0 reused" in capsys.readouterr().out
    file = folder / "edges/class1/3.png"
    assert Image.open(file).size == (27, 20)
    assert Image.open(folder / "edges/preview.png").size[0] > 1000
    assert set(control_facts(file)) == {"genzoo:extractor", "genzoo:source", "genzoo:settings"}
    task = task_of(folder, {"name": "canny", "low": 50})
    assert task.conditions(1, control=file)["control"].shape == (1, 3, 8, 8)
    for control in ("canny", {"name": "canny", "low": 50, "high": 90}):
        with pytest.raises(UsageError, match="another extractor") as caught:
            task_of(folder, control).conditions(1, control=[file])
        assert "it says canny low=50 high=200; the model was trained with canny low=" in str(caught.value)
    with pytest.raises(UsageError, match="is a folder, and control is a picture"):
        task.conditions(1, control=folder / "edges")


def task_of(folder: Path, control: Any) -> Any:
    return NextScaleTask(tiny_car(), codec=tiny_codec(folder), control=control)


def test_extraction_goes_on_after_an_interruption_and_leaves_finished_files_alone(folder: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_folder(folder / "pictures", folder / "edges", "canny", progress=stop)
    report, _ = extract_folder(folder / "pictures", folder / "edges", "canny")
    assert (report.reused, report.built) == (2, 2)
    photo(40, 30).save(folder / "pictures/class0/0.png")
    (folder / "pictures/class0/2.png").write_bytes(b"no picture")
    report, _ = extract_folder(folder / "pictures", folder / "edges", "canny")
    assert (report.reused, report.built, len(report.bad)) == (2, 1, 1)
    assert extract_folder(folder / "pictures", folder / "edges", {"name": "canny", "low": 9})[0].reused == 0
    # the sheet beside the maps says that it is none of them
    assert len(open_pictures(folder / "edges")) == report.total


def test_one_picture_is_extracted_too(folder: Path) -> None:
    extract_folder(folder / "pictures/class0/0.png", folder / "one", "canny")
    assert sorted(path.name for path in (folder / "one").iterdir()) == ["0.png", "preview.png"]


def test_what_is_missing_is_said(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.controls=FOLDER"):
        prepare_controls(car_recipe(folder, "data.controls=null"))
    with pytest.raises(UsageError, match=r"task\.control=canny"):
        prepare_controls(car_recipe(folder, "task.control=null"))
    photo(4, 4).save(folder / "pictures/class0/0.webp")
    with pytest.raises(DataError, match="would have one control"):
        extract_folder(folder / "pictures", folder / "edges", "canny")


def test_grey_and_coloured_controls_are_stored_as_such(tmp_path: Path) -> None:
    for name, control in {"L": torch.zeros(3, 4, 4), "RGB": pictures(1)[0]}.items():
        (tmp_path / f"{name}.png").write_bytes(control_png(control, extractor="x"))
        assert Image.open(tmp_path / f"{name}.png").mode == name


def test_a_folder_like_a_run_gives_what_control_from_gives(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    """Pictures of any size become the model's controls, bit for bit those that sampling extracts itself."""
    run = genzoo.train(car_recipe(folder, "data.controls=null", "task.control={name: canny, low: 60}"),
                       output=folder / "run")  # fmt: skip
    photo(50, 31).save(folder / "photo.png")
    words = ["prepare", "controls", str(folder / "photo.png"), "--output", str(folder / "edges")]
    with pytest.raises(SystemExit) as end:
        main([*words, "--like", str(run.folder)])
    assert end.value.code == 0
    made = folder / "edges/photo.png"
    assert Image.open(made).size == (8, 8)
    assert control_facts(made)["genzoo:extractor"] == run.task().extract.fingerprint
    ready = run.task().conditions(1, control=made)["control"]
    assert torch.equal(ready, run.task().conditions(1, control_from=folder / "photo.png")["control"])
    with pytest.raises(SystemExit) as end:
        main([*words, f"like={run.folder}"])  # the same again is there already
    assert "1 reused" in capsys.readouterr().out


def test_a_size_is_cropped_to_before_extraction_and_another_size_is_made_anew(folder: Path) -> None:
    for size, made in {"12": (12, 12), "[9,14]": (14, 9)}.items():
        words = ["prepare", "controls", str(folder / "pictures"), "control=canny", f"image_size={size}"]
        with pytest.raises(SystemExit) as end:
            main([*words, f"output={folder / 'edges'}"])
        assert end.value.code == 0
        assert Image.open(folder / "edges/class1/3.png").size == made


REFUSED = {
    "no-size": (["--control", "canny", "--image-size", "big"], "a side in pixels"),
    "no-picture-size": (["--control", "canny", "--image-size", "0"], "1 or more"),
    "beside-extractor": (["--like", "run", "--control", "canny"], "beside --control"),
    "beside-size": (["--like", "run", "--image-size", "8"], "beside --image-size"),
    "beside-setting": (["--like", "run", "low=3"], "beside low=3"),
    "no-run": (["--like", "nosuch"], "nosuch"),
    "without-control": (["--like", "assets:dim_emoji"], "follows no control"),
    "nothing": ([], "--like RUN"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_of_a_folder_that_say_nothing_or_two_things_are_refused(
    name: str, folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    words, said = REFUSED[name]
    with pytest.raises(SystemExit) as end:
        main(["prepare", "controls", "pictures", "--output", "edges", *words])
    assert end.value.code in (2, 4)
    assert said in capsys.readouterr().err
    assert not (folder / "edges").exists()


def test_options_for_a_folder_beside_a_recipe_are_refused(capsys: pytest.CaptureFixture) -> None:
    for option in ("--like=run", "--image-size=8", "--control=canny", "--output=edges"):
        with pytest.raises(SystemExit) as end:
            main(["prepare", "controls", "car_canny", option])
        assert end.value.code == 2
        assert "set task.control and data.controls" in capsys.readouterr().err
