"""Guidance by a control: its forms at their ends, a null control that was trained, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families.car.test_mixing import on_one_base, same, task_of, tokens
from families.car.tiny import pictures, tiny_codec, tiny_var

from genzoo.core.errors import UsageError
from genzoo.core.seeds import SampleStreams
from genzoo.families.car.control.guidance import FORMS, ControlGuidance
from genzoo.families.car.control.inputs import drop_controls
from genzoo.families.car.task import NextScaleTask


def dropping_task(folder: Path, control_dropout: float = 0.5) -> NextScaleTask:
    model = on_one_base(folder, 2)
    return NextScaleTask(model, codec=tiny_codec(folder), control="canny", control_dropout=control_dropout)


@pytest.mark.parametrize("form", ["class_half_only", "additive", "ramped"])
def test_at_0_these_forms_are_the_var(form: str, tmp_path: Path) -> None:
    task = task_of(tmp_path)
    drawn = tokens(task, control=pictures(1, seed=4), control_scale=0, control_guidance=form)
    assert same(drawn, tokens(NextScaleTask(tiny_var(), codec=task.codec)))


def test_at_1_pix2pix_is_the_car_and_the_others_are_not(tmp_path: Path) -> None:
    task, edges = task_of(tmp_path), pictures(1, seed=4)
    full = tokens(task, control=edges)
    assert same(tokens(task, control=edges, control_guidance="pix2pix"), full)
    for form in set(FORMS) - {"pix2pix"}:
        assert not same(tokens(task, control=edges, control_guidance=form), full)


def test_a_ramp_adds_to_the_strength_towards_the_last_scale() -> None:
    plain, ramped = (ControlGuidance("ramped", ramp).weights([[0.5] * 3], 3, 2.0) for ramp in (0.0, 4.0))
    assert plain[1] == [(0.5, 0.0)] * 3
    assert ramped[1] == [(0.5, 0.0), (2.5, 0.0), (4.5, 0.0)]
    assert ramped[0] == [(0.5, -0.0), (-1.0, -0.5), (-2.5, -1.0)]


def test_without_label_guidance_the_null_half_is_still_asked_for(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    conditions = task.conditions(2, class_labels=[0, 4], control=pictures(1), control_guidance="pix2pix")
    made = task.sample(
        task.model, conditions, SampleStreams.from_seeds(0, "sample", positions=range(2)), guidance_scale=1.0
    )
    assert made.shape == (2, 3, 8, 8)


def test_the_null_control_takes_the_place_of_the_base(tmp_path: Path) -> None:
    task, edges = dropping_task(tmp_path), pictures(1, seed=4)
    grey = torch.zeros_like(edges)
    full = tokens(task, control=edges)
    assert same(tokens(task, control=edges, control_against="grey"), full)
    assert same(
        tokens(task, control=edges, control_against="grey", control_scale=0), tokens(task, control=grey)
    )
    doubled = tokens(task, control=edges, control_against="grey", control_scale=2)
    assert not same(doubled, tokens(task, control=edges, control_scale=2))


def test_each_control_is_dropped_by_its_own_stream() -> None:
    controls = pictures(40, seed=3)
    streams = SampleStreams.from_seeds(3, "noise", positions=range(40))
    whole = drop_controls(controls, 0.5, streams)
    parts = [
        drop_controls(controls[at], 0.5, SampleStreams.from_seeds(3, "noise", positions=range(40)[at]))
        for at in (slice(0, 13), slice(13, 40))
    ]
    assert torch.equal(whole, torch.cat(parts))
    is_grey = (whole == 0).flatten(1).all(dim=1)
    assert 8 < int(is_grey.sum()) < 32
    assert torch.equal(whole[~is_grey], controls[~is_grey])


def test_bytes_become_mid_grey_and_nothing_is_drawn_without_dropout() -> None:
    controls = torch.randint(0, 256, (3, 3, 4, 4), dtype=torch.uint8)
    streams = SampleStreams.from_seeds(3, positions=range(3))
    assert (drop_controls(controls, 0.999999, streams) == 128).all()
    untouched = SampleStreams.from_seeds(4, positions=range(3))
    assert drop_controls(controls, 0.0, untouched) is controls
    fresh = SampleStreams.from_seeds(4, positions=range(3))
    assert torch.equal(untouched.rand(controls.device), fresh.rand(controls.device))


def test_training_sees_grey_pyramids_where_controls_are_dropped(tmp_path: Path) -> None:
    batch = {"pixels": pictures(6), "class_labels": torch.arange(6) % 5, "control": pictures(6, seed=9)}
    streams = [SampleStreams.from_seeds(0, "noise", positions=range(6)) for _ in range(2)]
    seen = dropping_task(tmp_path, 0.999999).prepare_batch(batch, streams[0])["control"]
    kept = dropping_task(tmp_path, 0.0).prepare_batch(batch, streams[1])["control"]
    assert all((level.abs() < 0.01).all() for level in seen)
    assert not any((level.abs() < 0.01).all() for level in kept)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"control_guidance": "pix2pixel"}, "did you mean 'pix2pix'"),
        ({"control_against": "nothing"}, "use one of base, grey"),
        ({"control_ramp": 1.5}, "control_guidance=ramped"),
        ({"control_guidance": "ramped", "control_ramp": float("nan")}, "control_ramp is nan"),
        ({"control_against": "grey"}, r"task\.control_dropout=0\.1"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        task_of(tmp_path).conditions(2, control=pictures(1), **options)


def test_guidance_needs_one_control(tmp_path: Path) -> None:
    task, other = task_of(tmp_path), task_of(tmp_path, seed=7)
    other.control_name = "lines"
    with pytest.raises(UsageError, match="nothing guides without a control"):
        task.conditions(2, control_guidance="additive")
    both = {"canny": pictures(1), "lines": pictures(1, seed=5)}
    with pytest.raises(UsageError, match="2 controls, and this guidance is by one"):
        task.conditions(2, control=both, control_runs={"there": other}, control_guidance="additive")


def test_a_var_has_no_control_to_hide(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a VAR has none"):
        NextScaleTask(tiny_var(), codec=tiny_codec(tmp_path), control_dropout=0.1)
