"""The recipes of all three stages, shrunk: trained one on the other, sampled, converted, and rebuilt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import genzoo
from genzoo.api.run import Run
from genzoo.api.runs.conversion import convert, export
from genzoo.core.errors import CheckpointError, UsageError
from genzoo.core.registry import CONTROLS
from genzoo.families.car.weights.released_layouts import branch_of

SCALES = "[1,2,4]"
TRAIN = [
    "train.steps=2", "train.batch_size=4", "train.num_workers=0", "train.precision=fp32",
    "train.checkpoint_every=2", "train.log_every=1", "train.tensorboard=false", "optim.warmup_steps=1",
]  # fmt: skip
TRANSFORMER = [
    "model.depth=2", "model.hidden_size=24", "model.num_heads=3", f"model.patch_nums={SCALES}",
    "model.codebook_size=16", f"codec.patch_nums={SCALES}",
]  # fmt: skip
RECIPES = sorted(path.stem for path in (Path(__file__).parents[3] / "recipes").glob("*.yaml"))


def picture_folder(folder: Path) -> list[str]:
    """Six pictures of 64 px in two classes, as overrides of a recipe."""
    random = np.random.RandomState(0)
    for index in range(6):
        path = folder / "pictures" / f"class{index % 2}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.randint(0, 256, (70, 64, 3), dtype=np.uint8)).save(path)
    return [f"data.root={folder / 'pictures'}", "data.image_size=64"]


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs vqvae, var and car, each trained on the one before."""
    folder = tmp_path_factory.mktemp("stages")
    data = picture_folder(folder)
    small = ["model.ch=32", "model.num_res_blocks=1", "model.codebook_size=16", "model.z_channels=4",
             f"model.patch_nums={SCALES}"]  # fmt: skip
    genzoo.train(genzoo.load_recipe("vqvae_imagenet", [*data, *TRAIN, *small]), output=folder / "vqvae")
    codec = [f"codec.weights={folder / 'vqvae'}"]
    var = [*data, *TRAIN, *TRANSFORMER, *codec, "sampler.top_k=12", "preview.num=2", "report=[]"]
    genzoo.train(genzoo.load_recipe("var_d16_imagenet", var), output=folder / "var")
    car = [*data, *TRAIN, *TRANSFORMER, *codec, "sampler.top_k=12", f"model.var_weights={folder / 'var'}",
           "model.num_classes=2", "model.in_channels=4"]  # fmt: skip
    genzoo.train(genzoo.load_recipe("car_canny", car), output=folder / "car")
    return folder


def test_each_stage_samples(stages: Path) -> None:
    photo, edges = str(stages / "pictures/class0/0.png"), str(stages / "edges.png")
    again = genzoo.load_run(stages / "vqvae").sample(image=photo)
    assert tuple(again.pixels.shape) == (1, 3, 64, 64)
    drawn = genzoo.load_run(stages / "var").sample(class_labels=[0, 1], weights="raw")
    assert tuple(drawn.pixels.shape) == (2, 3, 64, 64)
    run = genzoo.load_run(stages / "car")
    control = run.task(weights="raw").extract(torch.from_numpy(pixels_of(photo)))
    Image.fromarray(((control[0] + 1) * 127.5).byte().movedim(0, -1).numpy()).save(edges)
    given = run.sample(control=edges, class_labels=[1, 0], weights="raw").pixels
    extracted = run.sample(control_from=photo, class_labels=[1, 0], weights="raw").pixels
    assert torch.equal(given, extracted)
    assert not torch.equal(given, run.sample(class_labels=[1, 0], weights="raw").pixels)
    changed = run.sample(image=photo, region="0,0,0.5,1", class_labels=1, weights="raw").pixels
    assert tuple(changed.shape) == (1, 3, 64, 64)


def test_a_control_has_a_strength_from_none_to_full(stages: Path) -> None:
    car, var = genzoo.load_run(stages / "car"), genzoo.load_run(stages / "var")
    photo = str(stages / "pictures/class0/0.png")
    options: dict[str, Any] = {"class_labels": [1, 0], "guidance_scale": 2.0, "top_k": 9, "seed": 3}
    steered = {
        scale: car.sample(control_from=photo, control_scale=scale, **options).pixels for scale in (0, 0.5, 1)
    }
    assert torch.equal(steered[0], var.sample(**options).pixels)
    shared = var.sample(**options, refiner_run=str(stages / "var"), draft_scales=2)
    assert torch.equal(shared.pixels, steered[0])
    assert torch.equal(steered[1], car.sample(control_from=photo, **options).pixels)
    assert not torch.equal(steered[0.5], steered[1])
    assert len(car.sample(control_from=photo, control_scale=[0.5, 1, 0])) == 1


def test_runs_on_one_base_mix_their_controls(stages: Path, tmp_path: Path) -> None:
    car, photo = genzoo.load_run(stages / "car"), str(stages / "pictures/class0/0.png")
    other = stages / "negative"
    CONTROLS.register("negative")(Negative)
    recipe = car.recipe.replaced({"task.control": "negative", "name": "negative"}, "negative")
    genzoo.train(recipe, output=other)
    options = {"class_labels": [1, 0], "control_from": photo, "control_runs": [str(other)]}
    alone = genzoo.load_run(other).sample(class_labels=[1, 0], control_from=photo).pixels
    assert torch.equal(car.sample(**options, control_scale=[0, 1]).pixels, alone)
    folder = car.sample_to(tmp_path / "mixed", **options, control_scale=[1, 0.5])
    story = json.loads((folder / "samples.json").read_text())["samples"]
    assert [row["control_strength"] for row in story] == ["canny 1, negative 0.5"] * 2
    with pytest.raises(UsageError, match="made with other settings"):
        car.sample_to(folder, **options, control_scale=[1, 0.25])
    with pytest.raises(UsageError, match="mixed by CARs only"):
        car.sample(control_runs=[stages / "var"])
    with pytest.raises(UsageError, match="names runs, not 7"):
        car.sample(control_runs=[7])


class Negative:
    """A control without edges."""

    channels, fingerprint = 3, "negative"

    def to(self, device: Any) -> None:
        return None

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        return -pixels


def pixels_of(path: str) -> np.ndarray:
    picture = Image.open(path).crop((0, 3, 64, 67))
    return np.asarray(picture, dtype=np.float32).transpose(2, 0, 1)[None] / 127.5 - 1


def test_stages_convert_there_and_back(stages: Path, tmp_path: Path) -> None:
    run = genzoo.load_run(stages / "car")
    file = export(run, tmp_path / "car.safetensors", layout="car", weights="raw")
    codec, base = f"codec.weights={stages / 'vqvae'}", str(stages / "var")
    made, conversion = convert(
        file,
        tmp_path / "made",
        overrides=[codec, f"codec.patch_nums={SCALES}", "data.root=none", "sampler.top_k=12"],
        arguments={"var_weights": base},
    )
    assert {key for _, key, _ in conversion.report} == set(
        branch_of(run.task(weights="raw").model.state_dict())
    )
    options = {"class_labels": 1, "control_from": str(stages / "pictures/class1/1.png")}
    theirs = Run(made).sample(**options).pixels
    assert torch.equal(theirs, run.sample(**options, weights="raw").pixels)


def test_another_base_is_refused(stages: Path, tmp_path: Path) -> None:
    recipe = (stages / "car/recipe.yaml").read_text()
    data = [f"data.root={stages / 'pictures'}", "data.image_size=64"]
    other = [*data, *TRAIN, *TRANSFORMER, f"codec.weights={stages / 'vqvae'}", "sampler.top_k=12"]
    reseeded = [*other, "preview.num=2", "report=[]", "train.seed=5"]
    genzoo.train(genzoo.load_recipe("var_d16_imagenet", reseeded), output=tmp_path / "var")
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "recipe.yaml").write_text(recipe.replace(str(stages / "var"), str(tmp_path / "var")))
    (moved / "checkpoints").symlink_to(stages / "car/checkpoints")
    with pytest.raises(CheckpointError, match="frozen weights are not those"):
        genzoo.load_run(moved).sample(class_labels=0, weights="raw")


def test_the_family_has_its_recipes() -> None:
    assert {"vqvae_imagenet", "car_canny", *(f"var_d{d}_imagenet" for d in (16, 20, 24, 30))} <= set(RECIPES)


PUBLISHED = {
    "vqvae_ch160": 108_948_355,
    "var_d16": 310_283_520,
    "var_d20": 600_917_136,
    "var_d24": 1_033_399_360,
    "var_d30": 2_010_020_356,
    "var_d36": 2_353_893_904,
    "car_d16": 196_209_344,
    "car_d20": 363_873_032,
    "car_d24": 611_379_040,
    "car_d30": 1_166_748_802,
    "car_d36": 1_416_928_456,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_named_sizes_train_as_many_parameters_as_published(name: str) -> None:
    with torch.device("meta"):
        model = genzoo.create_model(name)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == PUBLISHED[name]


def test_work_of_every_model_can_be_counted() -> None:
    counts = {name: genzoo.count(name) for name in ("vqvae_ch160", "var_d16", "car_d16")}
    assert counts["var_d16"]["macs_conv"] == 0
    assert counts["car_d16"]["macs"] > counts["var_d16"]["macs"] > 0
    assert counts["vqvae_ch160"]["macs_conv"] > counts["vqvae_ch160"]["macs_attention"] > 0
