"""Properties of schedules and respacing."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genzoo.core.errors import UsageError
from genzoo.core.registry import SCHEDULES
from genzoo.diffusion.schedule import make_schedule, respaced_timesteps

TABLES = ("betas", "alphas_cumprod", "posterior_variance", "posterior_mean_coef1", "posterior_mean_coef2")


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_respacing_to_all_timesteps_reproduces_the_tables(name: str) -> None:
    schedule = make_schedule(name)
    for spaced in (
        schedule.respace(1000),
        schedule.respace("ddim1000"),
        make_schedule(name, respacing="1000"),
    ):
        for table in TABLES:
            assert torch.allclose(getattr(spaced, table), getattr(schedule, table), rtol=1e-9, atol=1e-13), (
                table
            )
        assert torch.equal(spaced.timestep_map, torch.arange(1000))


@given(total=st.integers(30, 1200), count=st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_even_spacing_keeps_both_ends_in_order(total: int, count: int) -> None:
    kept = respaced_timesteps(total, count)
    assert len(kept) == count
    assert kept == sorted(set(kept))
    assert kept[0] == 0
    assert count == 1 or kept[-1] == total - 1


def test_halves_round_to_even() -> None:
    assert respaced_timesteps(6, 3) == [0, 2, 5]
    assert respaced_timesteps(8, 3) == [0, 4, 7]


@given(total=st.integers(60, 1000), counts=st.lists(st.integers(1, 10), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_sections_spread_their_own_counts(total: int, counts: list[int]) -> None:
    kept = respaced_timesteps(total, ",".join(map(str, counts)))
    assert kept == respaced_timesteps(total, counts)
    assert len(set(kept)) == sum(counts)
    size, extra = divmod(total, len(counts))
    edges = [0]
    for section in range(len(counts)):
        edges.append(edges[-1] + size + (section < extra))
    for (start, end), count in zip(pairwise(edges), counts, strict=True):
        assert sum(start <= index < end for index in kept) == count


@given(stride=st.integers(1, 200))
@settings(max_examples=60, deadline=None)
def test_ddim_spacing_has_the_smallest_constant_stride(stride: int) -> None:
    count = len(range(0, 1000, stride))
    kept = respaced_timesteps(1000, f"ddim{count}")
    strides = {b - a for a, b in pairwise(kept)}
    assert len(kept) == count
    assert strides <= set(range(1, stride + 1))
    assert len(strides) <= 1


@given(steps=st.sampled_from([2, 3, 7, 50, 250, 999]))
@settings(max_examples=10, deadline=None)
def test_respacing_keeps_alpha_bar_and_respaces_again(steps: int) -> None:
    schedule = make_schedule()
    spaced = schedule.respace(steps)
    assert torch.allclose(spaced.alphas_cumprod, schedule.alphas_cumprod[spaced.timestep_map], rtol=1e-12)
    again = spaced.respace(min(steps, 2))
    assert torch.equal(again.timestep_map, torch.tensor([0, 999]))
    assert torch.allclose(again.alphas_cumprod, schedule.alphas_cumprod[[0, 999]], rtol=1e-12)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("total", [30, 100, 1000, 4000])
def test_schedules_of_any_length_end_in_noise(name: str, total: int) -> None:
    schedule = make_schedule(name, num_timesteps=total)
    assert (schedule.betas > 0).all()
    assert (schedule.alphas_cumprod.diff() < 0).all()
    assert schedule.alphas_cumprod[0] > 0.95
    assert schedule.alphas_cumprod[-1] < 2e-4
    assert torch.isfinite(schedule.posterior_log_variance_clipped).all()


@pytest.mark.parametrize(
    "options",
    [
        {"name": "linaer"},
        {"num_timesteps": 0},
        {"num_timesteps": 20},
        {"respacing": "ddim600"},
        {"respacing": "ddimmany"},
        {"respacing": 1001},
        {"respacing": 0},
        {"respacing": "10,x"},
        {"respacing": "-5"},
    ],
    ids=str,
)
def test_impossible_schedules_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        make_schedule(**options)  # type: ignore[arg-type]


def test_gather_casts_and_broadcasts() -> None:
    schedule, t = make_schedule(), torch.tensor([3, 999])
    for dtype, expected in [
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ]:
        values = schedule.gather("betas", t, torch.zeros(2, 3, 4, 5, dtype=dtype))
        assert values.shape == (2, 1, 1, 1)
        assert values.dtype == expected
        assert torch.allclose(values.flatten().double(), schedule.betas[t], rtol=1e-6)
