"""What users get wrong around VAR and CAR: a clear error each, and nothing is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families.car.tiny import (
    NUM_CLASSES,
    PATCH_NUMS,
    pictures,
    saved,
    streams,
    tiny_car,
    tiny_codec,
    tiny_task,
    tiny_var,
    tiny_vqvae,
)
from PIL import Image

from genzoo.core.errors import CheckpointError, DataError, GenzooError, ShapeError, UsageError, WeightsError
from genzoo.families.car.control.model import CAR
from genzoo.families.car.vqvae.codec import VQVAECodec
from genzoo.families.car.weights.loading import load_var_weights

LABELS = torch.zeros(2, dtype=torch.long)
CONTROLS: dict[str, tuple[Any, type[GenzooError], str]] = {
    "size": (torch.zeros(2, 3, 4, 8), DataError, r"\(3, 4, 8\); \(3, 8, 8\) is expected"),
    "channels": (torch.zeros(2, 1, 8, 8), DataError, r"\(1, 8, 8\); \(3, 8, 8\) is expected"),
}


@pytest.mark.parametrize("kind", CONTROLS)
def test_controls_of_the_data_must_fit_the_pictures(kind: str, tmp_path: Path) -> None:
    control, error, message = CONTROLS[kind]
    task = tiny_task(tmp_path, tiny_car())
    batch = {"pixels": pictures(2), "class_labels": LABELS, "control": control}
    with pytest.raises(error, match=message):
        task.prepare_batch(batch, streams(0, 1))


def bad_files(folder: Path) -> dict[str, Path]:
    """Files that are no pictures, by what is wrong with them."""
    noise = (pictures(1)[0].movedim(0, -1) * 127 + 128).byte().numpy()
    Image.fromarray(noise).resize((40, 40)).save(folder / "good.png")
    files = {name: folder / f"{name}.png" for name in ("missing", "text", "truncated", "empty")}
    files["text"].write_text("edges")
    files["truncated"].write_bytes((folder / "good.png").read_bytes()[:400])
    files["empty"].write_bytes(b"")
    return files


@pytest.mark.parametrize("kind", ["missing", "text", "truncated", "empty"])
@pytest.mark.parametrize("word", ["control", "control_from", "image"])
def test_an_unreadable_picture_is_named(kind: str, word: str, tmp_path: Path) -> None:
    task, file = tiny_task(tmp_path, tiny_car(), control="canny"), bad_files(tmp_path)[kind]
    options = {word: file} | ({"region": "0,0,1,1"} if word == "image" else {})
    with pytest.raises(DataError) as caught:
        task.conditions(1, **options)
    assert file.name in str(caught.value)


def test_labels_outside_the_table_are_refused_in_training_and_sampling(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, tiny_var())
    for label in (NUM_CLASSES, -1):
        with pytest.raises(UsageError, match="span"):
            task.conditions(1, class_labels=label)
        with pytest.raises(DataError, match="span"):
            task.prepare_batch({"pixels": pictures(1), "class_labels": torch.tensor([label])}, streams(0))


def test_scales_and_depths_must_fit() -> None:
    model = tiny_car()
    shapes = model.control_shapes()
    with pytest.raises(ShapeError, match="2 scales but patch_nums has 3"):
        model.encode_control([torch.zeros(1, *shape) for shape in shapes[:2]])
    with pytest.raises(ShapeError, match="control of scale 2"):
        model.encode_control([torch.zeros(1, *shape) for shape in (*shapes[:2], shapes[0])])
    with pytest.raises(UsageError, match="even depth"):
        tiny_car(depth=5)


def weights_files(folder: Path) -> dict[str, Path]:
    """VAR weights as a trainer wraps them, and what goes wrong with files."""
    state = tiny_var().state_dict()
    paths = {name: folder / f"{name}.pth" for name in ("wrapped", "truncated", "of the VQVAE", "missing")}
    wrapped = {f"module.{key}": value for key, value in state.items()}
    torch.save({"epoch": 3, "iter": 5, "trainer": {"var_wo_ddp": wrapped}}, paths["wrapped"])
    content = paths["wrapped"].read_bytes()
    paths["truncated"].write_bytes(content[: len(content) // 2])
    torch.save(tiny_vqvae().state_dict(), paths["of the VQVAE"])
    return paths


def test_a_wrapped_checkpoint_is_unwrapped(tmp_path: Path) -> None:
    read = load_var_weights(str(weights_files(tmp_path)["wrapped"]), tiny_var())
    expected = tiny_var().state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in read.items())
    assert "head.weight" in read


@pytest.mark.parametrize("kind", ["truncated", "of the VQVAE", "missing"])
def test_weights_that_cannot_be_a_base_are_refused(kind: str, tmp_path: Path) -> None:
    path = weights_files(tmp_path)[kind]
    with pytest.raises(WeightsError):
        tiny_car(var_weights=str(path))
    assert issubclass(CheckpointError, WeightsError)


def test_a_base_of_another_depth_or_width_is_refused(tmp_path: Path) -> None:
    for index, options in enumerate(({"depth": 2}, {"hidden_size": 48})):
        path = saved(tiny_var(**options), tmp_path / f"{index}.safetensors")
        with pytest.raises(CheckpointError, match="do not fit"):
            tiny_car(var_weights=path)


def test_a_truncated_vqvae_is_refused(tmp_path: Path) -> None:
    path = Path(saved(tiny_vqvae(), tmp_path / "vqvae.safetensors"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"vqvae\.safetensors"):
        VQVAECodec(str(path), patch_nums=PATCH_NUMS)


def test_more_tokens_than_the_codebook_has_are_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, tiny_car(), control="canny")
    calls: list[int] = []
    assert isinstance(task.model, CAR)
    task.model.base.head.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(UsageError, match="top_k is 17 but the codebook has 16"):
        task.sample(task.model, task.conditions(1, control_from=pictures(1)), streams(0), top_k=17)
    assert not calls
    assert tiny_codec(tmp_path).quantizer.weight.shape[0] == 16


@pytest.mark.parametrize("scales", [[1, 4], [1, 2, 3, 4], [(1, 2), (2, 4), (4, 8)]], ids=str)
def test_a_base_of_other_maps_is_refused_by_its_maps(scales: list[Any], tmp_path: Path) -> None:
    path = saved(tiny_var(), tmp_path / "var.safetensors")
    counts = [p * p if isinstance(p, int) else p[0] * p[1] for p in scales]
    with pytest.raises(CheckpointError) as caught:
        tiny_car(var_weights=path, patch_nums=scales)
    assert f"the file's have [1, 4, 16] tokens, the model's {counts}" in str(caught.value)


def test_a_first_map_that_the_base_does_not_start_from_is_refused() -> None:
    model, weights = tiny_var(patch_nums=[(1, 2), (2, 4), (4, 8)]), dict(tiny_var().state_dict())
    with pytest.raises(ShapeError, match="the first map is 1 x 2, but the base starts from 1 x 1"):
        model.refitted("pos_1LC", weights)


def test_a_task_refuses_maps_that_its_codec_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="disagree about tokens"):
        tiny_task(tmp_path, tiny_var(patch_nums=[1, 2, 3, 4]))


PYRAMIDS: dict[str, tuple[Any, str]] = {
    "empty": ([], "at least one scale"),
    "of size 0": ([0, 2], "size 1 or more"),
    "a number": (16, "lists the scales"),
    "a fraction": ([1.5, 2], r"has 1\.5; a scale is a side"),
    "text": (["1", "2"], "has '1'; a scale is a side"),
    "three sides": ([1, [1, 2, 3]], r"has \[1, 2, 3\]; a scale is a side"),
    "fine to coarse": ([4, 2, 1], "from coarse to fine"),
    "flatter": ([[2, 2], [1, 4]], "from coarse to fine"),
}


@pytest.mark.parametrize("kind", PYRAMIDS)
@pytest.mark.parametrize("make", [tiny_var, tiny_car, tiny_vqvae], ids=["var", "car", "vqvae"])
def test_what_is_no_pyramid_is_refused(kind: str, make: Any) -> None:
    scales, message = PYRAMIDS[kind]
    with pytest.raises(ShapeError, match=message):
        make(patch_nums=scales)


WRONG_STRENGTHS: dict[str, tuple[dict[str, Any], str]] = {
    "too many": ({"control_scale": [0.5, 1.0]}, "2 strengths|schedule of 2 strengths"),
    "a word": ({"control_scale": "strong"}, "no schedule 'strong'"),
    "no number": ({"control_scale": float("inf")}, "inf as a strength"),
    "beyond the bounds": ({"control_scale": -11}, "-11 as a strength"),
    "of nothing": ({"control": None, "control_scale": 0.5}, "needs a control"),
    "a control without its run": ({"control": {"hed": pictures(2)}}, "no run follows 'hed'"),
    "more controls than samples": ({"control": pictures(3)}, "3 pictures as control for 2 samples"),
}


@pytest.mark.parametrize("kind", WRONG_STRENGTHS)
def test_controls_and_strengths_are_refused_before_anything_is_drawn(kind: str, tmp_path: Path) -> None:
    options, message = WRONG_STRENGTHS[kind]
    task = tiny_task(tmp_path, tiny_car(), control="canny")
    calls: list[int] = []
    task.model.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(UsageError, match=message):
        task.conditions(2, **{"control": pictures(2), **options})
    assert not calls
