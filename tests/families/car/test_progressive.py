"""Scales that are added one by one: when, with which weight, and that a resumed run goes on with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families.car.test_car_tasks import trainer
from families.car.tiny import pictures, saved, tiny_car, tiny_task, tiny_var

from genzoo.autoregression.loss import next_scale_loss, token_losses
from genzoo.autoregression.progressive import Progressive
from genzoo.core.checkpoint import latest_valid, load_checkpoint
from genzoo.core.errors import UsageError
from genzoo.core.seeds import SampleStreams
from genzoo.families.car.task import NextScaleTask
from genzoo.families.car.weights.loading import load_var_weights

SCHEDULE = {"first_scales": 2, "until": 0.5, "warmup_steps": 4, "ramp_steps": 4}


def car_task(folder: Path, **options: Any) -> Any:
    path = saved(tiny_var(), folder / "var.safetensors")
    model = tiny_car(var_weights=path, drop_path=0.1)
    model.base.load_state_dict(load_var_weights(path, model.base))
    return tiny_task(folder, model, control="canny", **options)


def var_task(folder: Path, **options: Any) -> Any:
    return tiny_task(folder, tiny_var(drop_path=0.1), **options)


TASKS = {"var": var_task, "car": car_task}


def test_scales_grow_linearly_after_the_warm_up() -> None:
    schedule = Progressive(first_scales=5, until=0.5, warmup_steps=100)
    counts = [schedule.num_scales(step, 1000, 10) for step in range(1000)]
    assert counts[:141] == [5] * 141  # of 400 steps; half to even, as Python rounds
    assert [counts[step] for step in (150, 220, 300, 380, 450, 499, 500, 999)] == [6, 7, 7, 9, 9, 10, 10, 10]
    assert counts == sorted(counts)


def test_the_loss_of_a_scale_that_was_added_grows() -> None:
    schedule = Progressive(first_scales=2, until=1.0, warmup_steps=0, ramp_steps=20)
    weights: dict[int, list[float]] = {}
    for step in range(100):
        stage = schedule.stage(step, 100, 5)
        weights.setdefault(stage.num_scales, []).append(stage.last_weight)
    assert list(weights) == [2, 3, 4, 5]
    assert set(weights[2]) == set(weights[5]) == {1.0}
    for count in (3, 4):
        grown = weights[count]
        assert grown[:20] == pytest.approx([(number + 1) / 20 for number in range(20)])
        assert set(grown[20:]) == {1.0}
    slow = Progressive(first_scales=2, until=1.0, ramp_steps=1000)
    assert slow.stage(20, 100, 5).last_weight == 0.01


def test_tokens_of_the_first_scales_weigh_as_they_will_among_all() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 16, generator=generator, dtype=torch.float64)
    ids = torch.randint(16, (3, 5), generator=generator)
    terms = next_scale_loss(logits, ids, [1, 2, 4], num_scales=2, last_scale_weight=0.25)
    losses = token_losses(logits, ids).double()
    expected = (losses[:, :1].sum(1) + 0.25 * losses[:, 1:].sum(1)).mean() / 21
    assert float(terms["loss"]) == pytest.approx(float(expected), rel=1e-6)
    assert float(terms["cross_entropy_last"]) == pytest.approx(float(losses[:, 1:].mean()), rel=1e-6)


@pytest.mark.parametrize("kind", TASKS)
def test_a_step_reads_the_scales_of_its_stage_only(kind: str, tmp_path: Path) -> None:
    task = TASKS[kind](tmp_path, progressive=SCHEDULE)
    batch = {"pixels": pictures(2), "class_labels": torch.tensor([1, 3]), "steps": 20}
    lengths = {}
    for step in (0, 9, 10, None):
        at = batch if step is None else batch | {"step": step}
        prepared = task.prepare_batch(at, SampleStreams.from_seeds(0, "noise", positions=[0, 1]))
        loss = task.loss(task.model, prepared).loss
        lengths[step] = prepared["ids"].shape[1]
        assert prepared["teacher_input"].shape[1] == lengths[step] - 1
        assert torch.isfinite(loss)
        assert len(prepared.get("control", "ab")) == (
            2 if step == 0 or kind == "var" else len(task.model.patch_nums)
        )
    assert lengths == {0: 5, 9: 21, 10: 21, None: 21}


@pytest.mark.parametrize("options", [{}, {"control_network": "conv"}], ids=str)
@torch.no_grad()
def test_coarse_scales_do_not_depend_on_the_finer_ones(options: dict[str, Any]) -> None:
    model = tiny_car(**options)
    labels, read = torch.tensor([1, 2]), torch.randn(2, 20, 4, generator=torch.Generator().manual_seed(1))
    control = [torch.rand(2, *shape) for shape in model.control_shapes()]
    whole = model(labels, read, control)
    first = model(labels, read[:, :4], control[:2], num_scales=2)
    assert torch.allclose(first, whole[:, :5], atol=1e-5)


@pytest.mark.parametrize("kind", TASKS)
def test_a_resumed_run_goes_on_with_its_stage(kind: str, tmp_path: Path) -> None:
    schedule = {**SCHEDULE, "until": 0.8}
    for name, stops in (("whole", (30,)), ("cut", (9, 18, 30))):
        for stop in stops:
            task = TASKS[kind](tmp_path, progressive=schedule)
            trainer(task, tmp_path / name, steps=30).fit(until=stop)
    whole, cut = (load_checkpoint(latest_valid(tmp_path / name / "checkpoints")) for name in ("whole", "cut"))
    assert whole.step == cut.step == 30
    assert all(torch.equal(whole.weights[key], cut.weights[key]) for key in whole.weights)


@pytest.mark.parametrize(
    ("message", "section"),
    [
        ("begins with 3 scales, and the model has 3", {"until": 0.5, "first_scales": 3}),
        ("begins with 2 scales or more", {"until": 0.5, "first_scales": 1}),
        ("is a share of the steps, not 0", {"until": 0}),
        ("needs a value for 'until'", {"first_scales": 2}),
        ("did you mean.*until", {"untl": 0.5}),
    ],
)
def test_mistakes_are_named(message: str, section: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        var_task(tmp_path, progressive=section)


def test_without_a_schedule_nothing_changes(tmp_path: Path) -> None:
    task: NextScaleTask = var_task(tmp_path)
    batch = {"pixels": pictures(2), "class_labels": torch.tensor([1, 3]), "step": 0, "steps": 20}
    prepared = task.prepare_batch(batch, SampleStreams.from_seeds(0, "noise", positions=[0, 1]))
    logits = task.model(prepared["class_labels"], prepared["teacher_input"])
    plain = next_scale_loss(logits, prepared["ids"], task.codec.patch_nums)["loss"]
    assert torch.equal(task.loss(task.model, prepared).loss, plain)
