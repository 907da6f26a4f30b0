"""Strength of a control and several at once: the ends are the VAR and the CAR bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families.car.tiny import PATCH_NUMS, pictures, saved, streams, tiny_car, tiny_codec, tiny_task, tiny_var
from torch import Tensor

from genzoo.core.errors import UsageError
from genzoo.families.car.control.decoder import MixedDecoder, Steering
from genzoo.families.car.control.mixing import described, mixture, strengths_of
from genzoo.families.car.control.model import CAR
from genzoo.families.car.task import NextScaleTask
from genzoo.families.car.weights.loading import load_var_weights

GUIDED = {"guidance_scale": 2.5, "top_k": 6}


def on_one_base(folder: Path, seed: int, **options: Any) -> CAR:
    path = saved(tiny_var(), folder / "var.safetensors")
    model: CAR = tiny_car(seed=seed, **options)
    model.base.load_state_dict(load_var_weights(path, model.base))
    return model


def task_of(folder: Path, *, control: Any = "canny", seed: int = 2, **options: Any) -> NextScaleTask:
    return NextScaleTask(on_one_base(folder, seed, **options), codec=tiny_codec(folder), control=control)


def tokens(task: NextScaleTask, **options: Any) -> list[Tensor]:
    conditions = task.conditions(3, class_labels=[0, 4, 1], **options)
    drawn = task.sample_scales(task.model, conditions, streams(0, 1, 2), **GUIDED)
    return [*drawn.ids, drawn.f_hat]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    "options",
    [{}, {"control_network": "conv"}, {"injection": "zero_conv_add"}, {"injection": "cross_norm_add"}],
    ids=str,
)
def test_at_0_it_is_the_var_and_at_1_the_car_bit_for_bit(options: dict[str, Any], tmp_path: Path) -> None:
    task, edges = task_of(tmp_path, **options), pictures(1, seed=4)
    plain = NextScaleTask(tiny_var(), codec=task.codec)
    without, full = tokens(plain), tokens(task, control=edges)
    assert same(tokens(task, control=edges, control_scale=0), without)
    assert same(tokens(task, control_scale=0), without)
    assert same(tokens(task, control=edges, control_scale=1.0), full)
    assert not same(full, without)
    half = tokens(task, control=edges, control_scale=0.5)
    assert not same(half, full)
    assert not same(half, without)


def test_two_controls_mix_and_one_without_strength_leaves_no_trace(tmp_path: Path) -> None:
    own, other = task_of(tmp_path), task_of(tmp_path, control={"name": "canny", "low": 50}, seed=7)
    other.control_name = "lines"
    edges, lines, runs = pictures(1, seed=4), pictures(3, seed=5), {"there": other}
    both = {"canny": edges, "lines": lines}
    assert same(
        tokens(own, control=both, control_runs=runs, control_scale=[0, 1]),
        tokens(other, control=lines),
    )
    assert same(
        tokens(own, control=both, control_runs=runs, control_scale=[1, 0]), tokens(own, control=edges)
    )
    assert same(
        tokens(own, control={"lines": lines}, control_runs=runs, control_scale=[0.5]),
        tokens(other, control=lines, control_scale=0.5),
    )
    mixed = tokens(own, control=both, control_runs=runs)
    assert not same(mixed, tokens(own, control=edges))
    assert not same(mixed, tokens(other, control=lines))


def test_one_photo_gives_every_run_its_control(tmp_path: Path) -> None:
    own, other = (
        task_of(tmp_path, control=lambda x: -x),
        task_of(tmp_path, control=lambda x: x.flip(-1), seed=7),
    )
    own.control_name, other.control_name = "negative", "mirrored"
    photo = pictures(1, seed=4)
    found = tokens(own, control_from=photo, control_runs={"there": other})
    named = {"negative": -photo, "mirrored": photo.flip(-1)}
    assert same(found, tokens(own, control=named, control_runs={"there": other}))


def test_16_bit_copies_mix_too(tmp_path: Path) -> None:
    own, other = task_of(tmp_path), task_of(tmp_path, seed=7)
    other.control_name = "lines"
    conditions = own.conditions(
        2, control={"canny": pictures(1), "lines": pictures(1)}, control_runs={"there": other}
    )
    made = own.sample(own.model, conditions, streams(0, 1), precision="bf16")
    assert made.shape == (2, 3, 8, 8)
    assert next(other.model.parameters()).dtype == torch.float32


def calls(strengths: list[list[float]]) -> dict[str, int]:
    """How often blocks of the base and of the branches run for one sampling, by block."""
    model, other = tiny_car(), tiny_car(seed=7)
    counted: dict[str, int] = {}
    for name, module in {"base": model.base.blocks, "one": model.car_blocks, "two": other.car_blocks}.items():
        for index, block in enumerate(module):
            counted[f"{name} {index}"] = 0
            block.register_forward_hook(
                lambda *_, key=f"{name} {index}": counted.__setitem__(key, counted[key] + 1)
            )
    controls = [torch.zeros(1, *shape) for shape in model.control_shapes()]
    steerings = [
        Steering(car, car.encode_control(controls), row)
        for car, row in zip((model, other), strengths, strict=True)
    ]
    decoder = MixedDecoder(model.base, torch.tensor([0, 1]), steerings)
    with torch.no_grad():
        for scale, side in enumerate(PATCH_NUMS):
            decoder(scale, None if scale == 0 else torch.zeros(1, 4, side, side))
    return counted


def test_the_first_half_runs_once_a_scale_however_many_controls() -> None:
    counted = calls([[0.5] * 3, [0.25] * 3])
    assert counted["base 0"] == counted["base 1"] == 3
    assert counted["base 2"] == counted["base 3"] == 9  # alone, and under either control
    assert counted["one 0"] == counted["two 0"] == 3


def test_what_has_no_weight_does_not_run() -> None:
    counted = calls([[0.5] * 3, [0.5] * 3])
    assert counted["base 3"] == 6  # the base alone has no weight left
    counted = calls([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert counted["one 0"] == 2  # dropped after its last scale
    assert counted["two 0"] == 0
    assert counted["base 3"] == 5


def test_weights_sum_to_one_and_rounding_leaves_none() -> None:
    rows = mixture([[0.1, 2.0], [0.2, -0.5], [0.7, 0.0]], 2)
    assert rows[0] == [0.0, -0.5]
    assert [sum(column) for column in zip(*rows, strict=True)] == pytest.approx([1.0, 1.0])


SCHEDULES: list[tuple[Any, list[float]]] = [
    (0.5, [0.5] * 4),
    (-1, [-1.0] * 4),
    ("early:1", [1, 0, 0, 0]),
    ("late:3", [0, 0, 0, 1]),
    ("linear:0:1.5", [0, 0.5, 1, 1.5]),
    ([1, 2, 3, 4], [1, 2, 3, 4]),
    (["late:4"], [0, 0, 0, 0]),
]


@pytest.mark.parametrize(("given", "expected"), SCHEDULES, ids=str)
def test_strengths_have_a_value_for_every_scale(given: Any, expected: list[float]) -> None:
    assert strengths_of(given, 1, 4).tolist() == [pytest.approx(expected)]


def test_several_strengths_are_one_for_each_control() -> None:
    found = strengths_of([0.5, "early:1"], 2, 2)
    assert found.tolist() == [[0.5, 0.5], [1.0, 0.0]]
    assert described(found, ["canny", "hed"]) == "canny 0.5, hed 1 0"


REFUSED: list[tuple[str, Any]] = [
    ("2 controls, but control_scale has 1 strength", lambda f: strengths_of(0.5, 2, 4)),
    ("needs a control", lambda f: strengths_of(0.5, 0, 4)),
    ("a schedule of 3 strengths, and there are 4 scales", lambda f: strengths_of([1, 2, 3], 1, 4)),
    ("nan as a strength", lambda f: strengths_of(float("nan"), 1, 4)),
    ("11 as a strength", lambda f: strengths_of(11, 1, 4)),
    ("True as a strength", lambda f: strengths_of([True, 1], 2, 4)),
    ("no schedule 'soon:1'", lambda f: strengths_of("soon:1", 1, 4)),
    ("no schedule 'early:5'", lambda f: strengths_of("early:5", 1, 4)),
    ("takes none", lambda f: tiny_task(f, tiny_var()).conditions(1, control=pictures(1))),
    ("no run follows 'hed'", lambda f: task_of(f).conditions(1, control={"hed": pictures(1)})),
    (
        "two runs follow 'canny'",
        lambda f: task_of(f).conditions(1, control=pictures(1), control_runs={"b": task_of(f, seed=7)}),
    ),
    (
        "another base",
        lambda f: task_of(f).conditions(1, control_runs={"b": tiny_task(f, tiny_car(seed=9))}),
    ),
    (
        "tokens of another VQVAE",
        lambda f: task_of(f).conditions(
            1, control_runs={"b": NextScaleTask(on_one_base(f, 7), codec=tiny_codec(f, seed=3))}
        ),
    ),
    (
        "mixed by CARs only",
        lambda f: task_of(f).conditions(1, control_runs={"b": tiny_task(f, tiny_var())}),
    ),
]


@pytest.mark.parametrize(("message", "act"), REFUSED, ids=[message for message, _ in REFUSED])
def test_what_does_not_go_together_is_refused(message: str, act: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        act(tmp_path)
