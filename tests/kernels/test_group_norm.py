"""Group norm and its SiLU in C: values beside float64, any number of threads, and what stays torch's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import group_norm, silu

from genzoo.kernels.group_norm import (
    channels_last_where_faster,
    group_norm_silu,
    normalised,
    torch_serves_because,
)
from genzoo.kernels.native import build

needs_c = pytest.mark.skipif(build.unavailable_reason() is not None, reason="no C compiler on this machine")
ROUNDED = 2**-8  # of a value in bfloat16


def norm_of(channels: int, groups: int) -> nn.GroupNorm:
    """With weights that differ, in bfloat16 and without gradients."""
    norm, generator = nn.GroupNorm(groups, channels, eps=1e-6), torch.Generator().manual_seed(0)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(channels, generator=generator))
        norm.bias.copy_(torch.randn(channels, generator=generator))
    return norm.bfloat16().requires_grad_(False)


def maps(*shape: int, mean: float = 0.0) -> Tensor:
    """Channels-last, each channel about a mean of its own."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(shape, generator=generator) + mean * torch.randn(1, shape[1], 1, 1, generator=generator)
    return x.bfloat16().contiguous(memory_format=torch.channels_last)


def exact(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """In float64."""
    assert norm.weight is not None
    assert norm.bias is not None
    return group_norm(x.double(), norm.num_groups, norm.weight.double(), norm.bias.double(), norm.eps)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """As many for a test."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@needs_c
@pytest.mark.parametrize("mean", [0.0, 10.0])
@pytest.mark.parametrize(
    ("shape", "groups"),
    [
        ((1, 160, 16, 16), 32),
        ((2, 32, 7, 5), 4),
        ((3, 16, 1, 1), 1),
        ((1, 48, 33, 1), 48),
        ((2, 640, 4, 4), 32),
    ],
    ids=str,
)
def test_values_are_rounded_once(shape: tuple[int, ...], groups: int, mean: float) -> None:
    norm, x = norm_of(shape[1], groups), maps(*shape, mean=mean)
    assert torch_serves_because(norm, x) is None
    wanted = exact(norm, x)
    for found, right in ((normalised(norm, x), wanted), (group_norm_silu(norm, x), silu(wanted))):
        assert found.dtype == torch.bfloat16
        assert found.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(found.double(), right, rtol=ROUNDED, atol=1e-4)


@needs_c
def test_a_map_far_from_zero_keeps_its_digits() -> None:
    norm = norm_of(16, 2)
    x = maps(1, 16, 64, 64) + 64  # steps of a half, about 64 times the deviation
    torch.testing.assert_close(normalised(norm, x).double(), exact(norm, x), rtol=ROUNDED, atol=1e-3)


@needs_c
def test_threads_change_no_bit(two_threads: None) -> None:
    norm, x = norm_of(96, 32), maps(2, 96, 64, 48, mean=3.0)
    several = group_norm_silu(norm, x)
    torch.set_num_threads(1)
    assert torch.equal(group_norm_silu(norm, x), several)


def test_gradients_float32_and_other_layouts_stay_torchs() -> None:
    norm, x = norm_of(32, 4), maps(1, 32, 4, 4)
    dense, whole = x.contiguous(), norm_of(32, 4).float()
    learning = norm_of(32, 4).requires_grad_()
    watched = norm_of(32, 4)
    watched.register_forward_hook(lambda *_: None)
    for other, given in (
        (norm, dense),
        (whole, x.float()),
        (learning, x),
        (watched, x),
        (norm_of(24, 3), maps(1, 24, 4, 4)),
    ):
        assert torch_serves_because(other, given) is not None
        assert torch.equal(group_norm_silu(other, given), silu(other(given)))
        assert torch.equal(normalised(other, given), other(given))
    assert group_norm_silu(learning, x).requires_grad


@needs_c
def test_convolutions_are_laid_out_only_where_all_norms_follow() -> None:
    def layers(channels: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(3, channels, 3), norm_of(channels, 4)).bfloat16()

    for channels, follows in ((32, True), (24, False)):
        module = layers(channels)
        channels_last_where_faster(module)
        assert module[0].weight.is_contiguous(memory_format=torch.channels_last) == follows
