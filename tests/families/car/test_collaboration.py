"""Two models share the scales of a picture: the ends are either of them bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families.car.test_mixing import same, tokens
from families.car.tiny import PATCH_NUMS, pictures, tiny_car, tiny_codec, tiny_task, tiny_var

from genzoo.autoregression.sampling import NextScaleOptions
from genzoo.core.errors import UsageError
from genzoo.families.car.task import NextScaleTask


def small(folder: Path, **options: Any) -> NextScaleTask:
    return tiny_task(folder, tiny_var(seed=8, depth=2, hidden_size=12, **options))


def test_none_or_all_scales_are_one_model_alone_bit_for_bit(tmp_path: Path) -> None:
    large, other = tiny_task(tmp_path, tiny_var()), small(tmp_path)
    shared = {
        count: tokens(large, refiner_run={"there": other}, draft_scales=count)
        for count in range(len(PATCH_NUMS) + 1)
    }
    assert same(shared[0], tokens(other))
    assert same(shared[3], tokens(large))
    assert all(torch.equal(shared[2][scale], shared[3][scale]) for scale in (0, 1))
    assert not torch.equal(shared[2][2], shared[3][2])
    assert not torch.equal(shared[2][2], shared[0][2])


def test_both_follow_the_control_at_its_strength(tmp_path: Path) -> None:
    large, other = (
        NextScaleTask(tiny_car(seed=seed, depth=depth), codec=tiny_codec(tmp_path), control="canny")
        for seed, depth in ((2, 4), (8, 2))
    )
    options: dict[str, Any] = {"control": pictures(1), "control_scale": 0.5}
    shared = tokens(large, **options, refiner_run={"there": other}, draft_scales=1)
    assert torch.equal(shared[0], tokens(large, **options)[0])
    assert same(
        tokens(large, **options, refiner_run={"there": other}, draft_scales=0), tokens(other, **options)
    )
    assert not same(shared, tokens(large, refiner_run={"there": other}, draft_scales=1))


def test_the_draft_ends_where_the_refiner_begins(tmp_path: Path) -> None:
    large, other = tiny_task(tmp_path, tiny_var()), small(tmp_path)
    counts = {"large": 0, "small": 0}
    for name, task in (("large", large), ("small", other)):
        task.model.head.register_forward_hook(lambda *_, key=name: counts.update({key: counts[key] + 1}))
    tokens(large, refiner_run={"there": other}, draft_scales=2)
    assert counts == {"large": 2, "small": 1}


def test_what_is_shared_is_told_with_the_samples(tmp_path: Path) -> None:
    made = tiny_task(tmp_path, tiny_var()).conditions(
        2, refiner_run={"there": small(tmp_path)}, draft_scales=1
    )
    assert (made["draft_scales"], made["refiner_run"]) == ([1, 1], ["there", "there"])


REFUSED: list[tuple[str, Any]] = [
    ("two runs share", lambda f: {"draft_scales": 2}),
    ("two runs share", lambda f: {"refiner_run": {"a": small(f)}}),
    ("names 2 runs", lambda f: {"refiner_run": {"a": small(f), "b": small(f)}, "draft_scales": 1}),
    ("draft_scales is 4", lambda f: {"refiner_run": {"a": small(f)}, "draft_scales": 4}),
    ("draft_scales is -1", lambda f: {"refiner_run": {"a": small(f)}, "draft_scales": -1}),
    ("has 6 classes", lambda f: {"refiner_run": {"a": small(f, num_classes=6)}, "draft_scales": 1}),
    (
        "tokens of another VQVAE",
        lambda f: {
            "refiner_run": {"a": NextScaleTask(tiny_var(), codec=tiny_codec(f, seed=4))},
            "draft_scales": 1,
        },
    ),
    ("a VAR or a CAR only", lambda f: {"refiner_run": {"a": object()}, "draft_scales": 1}),
]


@pytest.mark.parametrize(("message", "options"), REFUSED, ids=[message for message, _ in REFUSED])
def test_unlike_runs_are_refused(message: str, options: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        tiny_task(tmp_path, tiny_var()).conditions(1, **options(tmp_path))


def test_a_temperature_is_positive_and_one_for_each_scale() -> None:
    assert NextScaleOptions(temperature=[1.1, 1.0]).temperatures(2) == [1.1, 1.0]
    assert NextScaleOptions(temperature=2).temperatures(3) == [2.0] * 3
    with pytest.raises(UsageError, match="temperature is 0"):
        NextScaleOptions(temperature=0)
    with pytest.raises(UsageError, match="has 2 values, and there are 3 scales"):
        NextScaleOptions(temperature=[1.0, 2.0]).temperatures(3)


def test_a_temperature_changes_what_is_drawn(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, tiny_var(), sampler={"temperature": [1.0, 1.0, 3.0]})
    plain = tiny_task(tmp_path, tiny_var(), sampler={})
    hot, cold = tokens(task), tokens(plain)
    assert all(torch.equal(hot[scale], cold[scale]) for scale in (0, 1))
    assert not torch.equal(hot[2], cold[2])
