"""Sampling from a run: what a picture depends on, and what happens to the files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from genzoo.api.recipes.build import build_task
from genzoo.api.run import Run, load_run
from genzoo.api.sampling.plan import make_plan, sample_all
from genzoo.api.sampling.samples import Samples
from genzoo.core.errors import CheckpointError, ShapeError, UsageError
from genzoo.core.recipe import with_overrides
from genzoo.pictures.grid import make_grid
from genzoo.pictures.pixels import to_uint8


def files(folder: Path) -> dict[str, bytes]:
    """Name and content of everything but samples.json."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}


def test_a_picture_depends_on_seed_and_index_only(trained: Run) -> None:
    many = trained.sample(num=10, seed=3)
    assert torch.equal(many.pixels[:3], trained.sample(num=3, seed=3).pixels)
    assert torch.equal(many.pixels, load_run(trained.folder).sample(num=10, seed=3).pixels)
    assert not torch.equal(many.pixels, trained.sample(num=10, seed=4).pixels)
    assert many.pixels.shape == (10, 1, 8, 8)
    # blocks of another size may round differently, and no more than that
    torch.testing.assert_close(
        trained.sample(num=10, seed=3, block_size=3).pixels, many.pixels, atol=1e-3, rtol=0
    )


def test_conditions_and_options_reach_the_sampler(trained: Run) -> None:
    plain = trained.sample(class_labels=[3, 3, 7])
    assert len(plain) == 3
    assert plain.conditions["class_labels"].tolist() == [3, 3, 7]
    assert not torch.equal(plain.pixels[0], plain.pixels[1])
    assert not torch.equal(plain.pixels, trained.sample(class_labels=[4, 4, 8]).pixels)
    assert not torch.equal(plain.pixels, trained.sample(class_labels=[3, 3, 7], guidance_scale=5.0).pixels)
    assert not torch.equal(plain.pixels, trained.sample(class_labels=[3, 3, 7], steps=5).pixels)
    other = trained.sample(class_labels=[3, 3, 7], sampler="ddpm", steps=4)
    assert torch.isfinite(other.pixels).all()


def test_samples_say_what_the_network_computed_in(trained: Run) -> None:
    assert trained.sample(num=2).settings["precision"] == "fp32"
    rounded = trained.sample(num=2, precision="bf16")
    assert rounded.settings["precision"] == "bf16"
    assert not torch.equal(rounded.pixels, trained.sample(num=2).pixels)
    task: Any = build_task(with_overrides(trained.recipe, ["train.precision=bf16"]))
    assert task.run_precision == "bf16"


def test_weights_and_checkpoint_can_be_chosen(trained: Run) -> None:
    averaged, raw = trained.sample(num=2), trained.sample(num=2, weights="raw")
    older = trained.sample(num=2, checkpoint=4)
    assert not torch.equal(averaged.pixels, raw.pixels)
    assert not torch.equal(averaged.pixels, older.pixels)
    assert older.settings["checkpoint"] == "step_00000004"
    assert averaged.settings["recipe_sha256"] == trained.recipe.sha256


def test_wrong_requests_are_explained(trained: Run) -> None:
    with pytest.raises(UsageError, match="guidance_scale"):
        trained.sample(num=2, guidance_scal=2.0)
    with pytest.raises(UsageError, match="10 classes"):
        trained.sample(class_labels=[10])
    with pytest.raises(UsageError, match="2 class_labels for 3"):
        trained.sample(num=3, class_labels=[1, 2])
    with pytest.raises(UsageError, match="at least 1"):
        trained.sample(num=0)
    with pytest.raises(CheckpointError, match="step_00000006"):
        trained.sample(num=1, checkpoint=5)
    with pytest.raises(UsageError, match="ema"):
        trained.sample(num=1, weights="mean")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"guidance_scal": 2.0}, "no option 'guidance_scal' (did you mean 'guidance_scale'"),
        ({"clas_labels": 3}, "no option 'clas_labels' (did you mean 'class_labels'"),
        ({"eta": 0.5, "wobble": 1}, "no option 'wobble'"),
        ({"sampler": "ddpm", "eta": 0.5}, "no option 'eta'"),
        ({"sampler": "dddpm"}, "did you mean 'ddpm'"),
        ({"guidance_scale": "high"}, "guidance_scale must be a finite number, not 'high'"),
        ({"class_labels": [10]}, "10 classes"),
        ({"steps": 0}, "steps"),
    ],
)
def test_what_cannot_be_sampled_blocks_no_folder(
    trained: Run, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        trained.sample_to(tmp_path / "out", num=1, **options)
    assert words in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert trained.sample_to(tmp_path / "out", num=1).is_dir()


def test_another_sampler_brings_its_own_options(trained: Run) -> None:
    options = {"sampler": "ddpm", "steps": 2, "variance": "fixed_small"}
    other = trained.sample(num=2, **options)
    assert other.settings["options"] == options
    with pytest.raises(UsageError, match="no option 'variance'"):
        trained.sample(num=2, variance="fixed_small")


def test_an_unknown_option_is_answered_with_all_there_are(trained: Run) -> None:
    with pytest.raises(UsageError) as caught:
        trained.sample(num=1, wobble=1)
    assert "what to sample: class_labels" in str(caught.value)
    for name in ("steps", "eta", "clip_x_0", "guidance_scale", "cfg_channels"):
        assert name in str(caught.value).partition("how: ")[2]


class Curious:
    """A task of someone else's, which says nothing about its sampler."""

    model = torch.nn.Identity()

    def conditions(self, num: int, colour: str = "red", **unknown: Any) -> dict[str, Any]:
        return {"colour": [colour] * num}

    def sample(self, model: Any, conditions: Any, generator: Any, **options: Any) -> torch.Tensor:
        return torch.full((len(generator), 1, 2, 3), options.get("wobble", 0.0))


class Plain(Curious):
    """Another, whose `sample` names its options."""

    def sample(self, model: Any, conditions: Any, generator: Any, *, wobble: float = 0.0) -> torch.Tensor:
        return torch.full((len(generator), 1, 2, 3), wobble)


@pytest.mark.parametrize("task", [Curious(), Plain()])
def test_a_task_without_a_sampler_section_gets_the_options_it_names(task: Any) -> None:
    plan = make_plan(task, num=2, seed=0, block_size=3, options={"colour": "blue", "wobble": 0.5})
    assert plan.conditions == {"colour": ["blue", "blue"]}
    assert next(sample_all(task, plan))[1].unique().tolist() == [0.5]
    unknown = {"wobbl": 0.5}
    if isinstance(task, Plain):
        with pytest.raises(UsageError, match="did you mean 'wobble'"):
            make_plan(task, num=2, seed=0, block_size=3, options=unknown)
    else:
        assert make_plan(task, num=2, seed=0, block_size=3, options=unknown).options == unknown


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_files_are_the_same_for_any_batch_size(trained: Run, tmp_path: Path, batch_size: int) -> None:
    reference = trained.sample(num=10, seed=1).save(tmp_path / "reference")
    written = trained.sample_to(tmp_path / "written", num=10, seed=1, batch_size=batch_size)
    assert files(written) == files(reference)
    assert len(files(written)) == 11  # ten pictures and the grid


def test_two_processes_share_the_pictures(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = trained.sample_to(tmp_path / "alone", num=10)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, expected in (("1", 4), ("0", 11)):  # blocks of four: 0-3, 4-7, 8-9
        monkeypatch.setenv("RANK", rank)
        shared = trained.sample_to(tmp_path / "shared", num=10)
        assert len(files(shared)) == expected
    assert files(shared) == files(alone)
    assert (shared / "samples.json").read_text() == (alone / "samples.json").read_text()


def test_an_interrupted_folder_is_completed_without_touching_what_is_there(
    trained: Run, tmp_path: Path
) -> None:
    folder = trained.sample_to(tmp_path / "out", num=10)
    complete = files(folder)
    for name in ("000002.png", "000009.png", "grid.png"):
        (folder / name).unlink()
    untouched = (folder / "000005.png").stat().st_mtime_ns
    trained.sample_to(folder, num=10)
    assert files(folder) == complete
    assert (folder / "000005.png").stat().st_mtime_ns == untouched


def test_a_folder_of_other_settings_is_refused(trained: Run, tmp_path: Path) -> None:
    folder = trained.sample_to(tmp_path / "out", num=3)
    for changed in (
        {"seed": 9},
        {"guidance_scale": 3.0},
        {"weights": "raw"},
        {"class_labels": 2},
    ):
        with pytest.raises(UsageError, match="other settings"):
            trained.sample_to(folder, **{"num": 3, **changed})  # type: ignore[arg-type]
    (folder / "samples.json").unlink()
    with pytest.raises(UsageError, match="no samples"):
        trained.sample_to(folder, num=3)


def test_samples_json_says_how_to_make_them_again(trained: Run, tmp_path: Path) -> None:
    folder = trained.sample_to(tmp_path / "out", class_labels=[5, 2], seed=7, guidance_scale=2.0)
    found = json.loads((folder / "samples.json").read_text())
    assert found["samples"] == [
        {"file": "000000.png", "class_labels": 5},
        {"file": "000001.png", "class_labels": 2},
    ]
    assert found["options"] == {"guidance_scale": 2.0}
    assert (found["seed"], found["num"], found["weights"]) == (7, 2, "ema")
    assert found["recipe_sha256"] == trained.recipe.sha256


def test_no_more_than_batch_size_pictures_are_held(trained: Run, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    trained.sample_to(tmp_path / "out", num=14, batch_size=8, progress=lambda *done: steps.append(done))
    assert steps == [(8, 14), (14, 14)]


def test_a_corrupt_newest_checkpoint_is_skipped_and_foreign_weights_are_refused(
    trained: Run, tmp_path: Path
) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(trained.folder, copy)
    older = load_run(copy).sample(num=2, checkpoint=4)
    path = copy / "checkpoints/step_00000006/ema.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert torch.equal(load_run(copy).sample(num=2).pixels, older.pixels)
    recipe = copy / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("hidden_size: 24", "hidden_size: 32"))
    with pytest.raises(CheckpointError, match="does not fit"):
        load_run(copy).sample(num=2)


def test_grids_place_pictures_row_by_row() -> None:
    images = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 1, 40, 32) * 10
    picture = make_grid(images, columns=2, gap=1).image
    assert picture.size == (2 * 34, 3 * 42)
    centres = [picture.getpixel((17 + 34 * (i % 2), 21 + 42 * (i // 2))) for i in range(6)]
    assert centres == [0, 10, 20, 30, 40, 255]
    with pytest.raises(ShapeError, match="pictures"):
        make_grid(torch.zeros(3, 8, 8, dtype=torch.uint8))
    with pytest.raises(UsageError, match="columns"):
        make_grid(images, columns=0)


def test_samples_show_themselves_and_round_as_the_dit_sampler_does() -> None:
    pixels = torch.tensor([-2.0, -1.0, 0.0, 0.999, 1.0, 2.0]).reshape(1, 1, 2, 3)
    assert to_uint8(pixels).flatten().tolist() == [0, 0, 128, 255, 255, 255]
    samples = Samples(pixels)
    assert samples._repr_png_().startswith(b"\x89PNG")
    assert samples.grid()._repr_png_() == samples._repr_png_()
