"""Averages of any length after training: stored exactly, resumed exactly, combined as near as they can be."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recipe_cases import TINY
from safetensors.torch import load_file
from torch import nn

from genzoo.api.run import load_run
from genzoo.api.runs.reaveraged import combination, combined, reaveraged
from genzoo.api.training.train import train_recipe
from genzoo.core.errors import CheckpointError, RecipeError, UsageError, WeightsError
from genzoo.core.recipe import Recipe, recipe_from
from genzoo.training.config import TrainConfig
from genzoo.training.power_average import Profile, coefficients, decay_at, gamma_of, profile_gap, sigma_of
from genzoo.training.profiles import PowerAverages, write_snapshot

LENGTHS = [0.05, 0.1]


def recipe(**train: Any) -> Recipe:
    settings = {**TINY["train"], "steps": 8, "checkpoint_every": 2, "ema_profiles": LENGTHS, **train}
    return recipe_from({**TINY, "train": settings, "preview": {"every": 0}, "report": []})


def stored(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {file.name: load_file(file) for file in sorted((folder / "profiles").iterdir())}


@given(sigma=st.floats(0.01, 0.28))
@settings(max_examples=50, deadline=None)
def test_lengths_and_exponents_are_inverse(sigma: float) -> None:
    assert sigma_of(gamma_of(sigma)) == pytest.approx(sigma, rel=1e-9)


@pytest.mark.parametrize("length", [0.0, -0.1, 0.289, 0.3])
def test_lengths_that_no_average_has_are_refused(length: float) -> None:
    with pytest.raises(UsageError, match=r"lengths lie between 0 and 0\.289"):
        gamma_of(length)


def test_the_tracked_average_weighs_steps_by_the_profile_and_forgets_the_initial_weights() -> None:
    parameter, steps, gamma = nn.Parameter(torch.full((1,), 100.0, dtype=torch.float64)), 200, gamma_of(0.1)
    average = PowerAverages({"a": parameter}, [0.1])
    values = torch.randn(steps, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for step, value in enumerate(values, 1):
        with torch.no_grad():
            parameter.fill_(value)
        average.update(step)
    edges = (torch.arange(steps + 1, dtype=torch.float64) / steps) ** (gamma + 1)
    assert average.tensors()["a/profile_0.1"].item() == pytest.approx((edges.diff() * values).sum().item())
    assert decay_at(1, gamma) == 0.0


def test_a_stored_length_at_a_snapshot_is_that_snapshot() -> None:
    profiles = [Profile(t, gamma_of(s)) for t in (10, 20, 30) for s in (0.05, 0.1)]
    weights = coefficients(profiles, Profile(30, gamma_of(0.1)))
    assert weights == pytest.approx([0, 0, 0, 0, 0, 1], abs=1e-9)
    assert profile_gap(profiles, weights, Profile(30, gamma_of(0.1))) < 1e-7


def test_more_snapshots_come_nearer() -> None:
    gaps = []
    for count in (8, 32, 128):
        times = [4096 * (k + 1) / count for k in range(count)]
        profiles = [Profile(t, gamma_of(s)) for t in times for s in (0.05, 0.1)]
        wanted = Profile(4096, gamma_of(0.15))
        gaps.append(profile_gap(profiles, coefficients(profiles, wanted), wanted))
    # the published behaviour of two profiles: as the square of the number
    assert gaps == pytest.approx([0.033, 0.0023, 1.4e-4], rel=0.1)


def test_a_run_stores_its_averages_and_samples_with_any_length(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train_recipe(recipe(steps=48, checkpoint_every=48), output=tmp_path / "run")
    assert len(stored(tmp_path / "run")) == 16
    run = load_run(tmp_path / "run")
    with caplog.at_level(logging.INFO):
        samples = run.sample(num=2, ema=0.07)
    assert "average of length 0.07 at step 48" in caplog.text
    assert "off by" in caplog.text
    assert not torch.equal(samples.pixels, run.sample(num=2).pixels)
    assert torch.equal(samples.pixels, run.sample(num=2, ema=0.07).pixels)
    at_snapshot = reaveraged(tmp_path / "run", 0.1, 48)
    last = load_file(tmp_path / "run/profiles/step_00000048.safetensors")
    for name, tensor in at_snapshot.items():
        assert torch.allclose(tensor, last[f"{name}/profile_0.1"], rtol=1e-6, atol=1e-7)


def test_a_combination_comes_as_near_as_its_profile_says(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    parameter = nn.Parameter(torch.zeros(64))
    kept, direct = (
        PowerAverages({"a": parameter}, [0.04, 0.08, 0.16]),
        PowerAverages({"a": parameter}, [0.06]),
    )
    for step in range(1, 257):
        with torch.no_grad():
            parameter.add_(0.1 * torch.randn(64, generator=generator))
        for average in (kept, direct):
            average.update(step)
        if step % 16 == 0:
            write_snapshot(tmp_path, step, kept.tensors())
    chosen = combination(tmp_path, 0.06, 256)
    rebuilt, wanted = combined(chosen)["a"], direct.tensors()["a/profile_0.06"]
    assert chosen.step == 256
    assert ((rebuilt - wanted).norm() / wanted.norm()).item() < chosen.gap
    assert chosen.gap < 2e-3
    assert combination(tmp_path, 0.06, 200).step == 192


def test_a_resumed_run_stores_the_same_and_goes_on_exactly(tmp_path: Path) -> None:
    train_recipe(recipe(), output=tmp_path / "whole")
    train_recipe(recipe(steps=5, ema_snapshot_every=1), output=tmp_path / "cut")
    train_recipe(recipe(), output=tmp_path / "cut")
    whole, cut = stored(tmp_path / "whole"), stored(tmp_path / "cut")
    assert set(whole) == set(cut)
    for name, tensors in whole.items():
        assert all(torch.equal(tensor, cut[name][key]) for key, tensor in tensors.items())


def test_profiles_cannot_be_begun_late(tmp_path: Path) -> None:
    train_recipe(recipe(steps=4, ema_profiles=[]), output=tmp_path / "run")
    assert not (tmp_path / "run/profiles").exists()
    with pytest.raises(CheckpointError, match="cannot be begun later"):
        train_recipe(recipe(), output=tmp_path / "run")
    with pytest.raises(WeightsError, match="which are too few") as caught:
        load_run(tmp_path / "run").sample(num=1, ema=0.05)
    assert "train.ema_profiles" in str(caught.value)


def test_lengths_far_from_those_stored_are_refused(tmp_path: Path) -> None:
    train_recipe(recipe(), output=tmp_path / "run")
    run = load_run(tmp_path / "run")
    with pytest.raises(UsageError, match="cannot be put together"):
        run.sample(num=1, ema=0.28)
    with pytest.raises(UsageError, match="lengths lie between"):
        run.sample(num=1, ema=0.3)
    with pytest.raises(UsageError, match="use a relative length"):
        run.sample(num=1, ema="long")
    with pytest.raises(UsageError, match="raw weights have no average"):
        run.sample(num=1, ema=0.05, weights="raw")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ema_profiles": [0.05, 0.4]}, "between 0 and 0.289, not 0.4"),
        ({"ema_profiles": [0.05]}, "two or more different lengths"),
        ({"ema_profiles": [0.05, 0.05]}, "two or more different lengths"),
        ({"ema_profiles": [0.05, 0.1], "ema_snapshot_every": 0}, "must be at least 1"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        TrainConfig(steps=1, batch_size=1, **options)
