"""The quick start trains, steers, measures and shows; a few steps of it, from shipped weights alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import genzoo
from genzoo.api.run import Run
from genzoo.api.runs.run_report import read_report

RECIPE = Path(__file__).resolve().parents[3] / "recipes/quickstart/car_canny_emoji.yaml"
SHORT = [
    "train.steps=2", "train.batch_size=2", "train.tensorboard=false", "preview.every=2", "preview.num=3",
    "preview.columns=3", "report=[{name: control_edges, num: 4, shown: 4}]",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = genzoo.load_recipe(RECIPE, SHORT)
    return genzoo.train(recipe, output=tmp_path_factory.mktemp("car") / "run")


def test_two_of_seven_classes_are_kept_from_training(run: Run) -> None:
    seen = {item["category"] for item in run.dataset().items}  # type: ignore[attr-defined]
    assert run.dataset().num_classes == 7
    assert len(seen) == 5
    assert not seen & {"Food & Drink", "Objects"}


def test_the_report_compares_with_the_frozen_base(run: Run) -> None:
    (entry,) = read_report(run)["metrics"]
    result = entry["result"]
    assert result["classes"] == "Food & Drink + Objects"
    assert result["ratio"] == pytest.approx(result["f1"] / result["f1_uncontrolled"])
    assert 0 < result["f1"] < result["f1_reconstructed"] < 1


def test_pictures_show_controls_and_samples(run: Run) -> None:
    with Image.open(run.folder / "samples/control_edges.png") as picture:
        # control, sample, uncontrolled, original: 64 px, a frame, and the name of the class above
        assert picture.size == (4 * 68, 4 * 80)
    with Image.open(run.folder / "samples/step_00000002/grid.png") as picture:
        assert picture.size == (3 * 68, 2 * 68)  # controls above samples


def test_a_control_is_extracted_from_any_picture(run: Run) -> None:
    photo = run.folder / "samples/control_edges.png"
    samples = run.sample(num=2, class_labels=2, control_from=str(photo), seed=1)
    assert samples.pixels.shape == (2, 3, 64, 64)
