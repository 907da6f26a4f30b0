"""Randomness as a function of position: the same everywhere, and every value can come up."""

from __future__ import annotations

import pytest
import torch

from genzoo.core.seeds import SampleStreams, generator_for, mix_seed


def streams(*positions: int, name: str = "noise") -> SampleStreams:
    return SampleStreams.from_seeds(3, name, positions=positions)


def test_seeds_are_the_recorded_ones() -> None:
    # runs that are resumed on another machine or by a later version depend on them
    assert mix_seed(0, "noise", 5) == 8991323715021420900
    assert mix_seed("init") == 5232189655687916818


def test_seeds_tell_numbers_from_names_and_where_one_part_ends() -> None:
    seeds = [mix_seed(*parts) for parts in ((1, 23), (12, 3), ("1", 23), ("a", "b"), ("ab",), (0,), ())]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_every_integer_below_the_bound_is_drawn_and_none_beyond() -> None:
    drawn = streams(*range(300)).randint(7)
    assert drawn.dtype == torch.int64
    assert sorted(set(drawn.tolist())) == [0, 1, 2, 3, 4, 5, 6]


def test_integers_are_drawn_evenly() -> None:
    counts = streams(*range(4000)).randint(4).bincount(minlength=4)
    assert (counts - 1000).abs().max() < 110  # four standard deviations


def test_uniform_numbers_fill_the_unit_interval() -> None:
    drawn = streams(*range(2000)).rand()
    assert drawn.dtype == torch.float32
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.026)  # four standard errors
    assert drawn.max() - drawn.min() > 0.99


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_a_sample_meets_the_same_noise_in_any_batch(dtype: torch.dtype) -> None:
    whole = streams(4, 5, 6).randn_like(torch.zeros(3, 2, 5, dtype=dtype))
    alone = streams(5).randn_like(torch.zeros(1, 2, 5, dtype=dtype))
    assert whole.dtype == dtype
    assert whole[1:2].equal(alone)
    assert not whole[0].equal(whole[1])


def test_half_precision_noise_is_rounded_float32_noise() -> None:
    full = streams(4, 9).randn_like(torch.zeros(2, 50))
    assert streams(4, 9).randn_like(torch.zeros(2, 50, dtype=torch.bfloat16)).equal(full.bfloat16())


def test_a_slice_goes_on_where_its_streams_are() -> None:
    one, other = streams(1, 2, 3), streams(1, 2, 3)
    first = one.rand()
    assert len(one[1:]) == 2
    assert other[1:].rand().equal(first[1:])
    assert other[1:].rand().equal(one.rand()[1:])


def test_names_separate_streams() -> None:
    assert not streams(1, 2).rand().equal(streams(1, 2, name="dropout").rand())
    assert generator_for(1, "a").initial_seed() == mix_seed(1, "a")
