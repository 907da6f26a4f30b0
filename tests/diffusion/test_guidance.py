"""Classifier-free guidance: what it computes, and what it costs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from genzoo.core.errors import UsageError
from genzoo.diffusion.guidance import Guidance, combine, guided_output

X, TIMESTEPS, LABELS = torch.randn(2, 4, 3, 5), torch.tensor([500, 500]), torch.tensor([3, 7])
NULL = 10


class CountingModel:
    """Output = label + channel number, with variance channels; remembers the batches it saw."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, x: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        assert len(x) == len(timesteps) == len(labels)
        self.batches.append(len(x))
        channels = torch.arange(8.0).reshape(1, 8, 1, 1)
        return (labels.reshape(-1, 1, 1, 1) + channels).expand(-1, -1, *x.shape[2:]).clone()


def values(output: Tensor) -> list[list[float]]:
    assert torch.equal(output, output[:, :, :1, :1].expand_as(output))
    return output[:, :, 0, 0].tolist()


def test_guidance_extrapolates_from_the_null_label() -> None:
    model = CountingModel()
    output = guided_output(model, X, TIMESTEPS, LABELS, NULL, Guidance(1.5))
    # null + 1.5 (label - null): 3 -> -0.5, 7 -> 5.5; the variance half keeps the labels
    assert values(output) == [
        [-0.5, 0.5, 1.5, 2.5, 7.0, 8.0, 9.0, 10.0],
        [5.5, 6.5, 7.5, 8.5, 11.0, 12.0, 13.0, 14.0],
    ]
    assert model.batches == [4]


def test_only_the_first_channels_are_guided_when_asked() -> None:
    output = guided_output(CountingModel(), X, TIMESTEPS, LABELS, NULL, Guidance(1.5, cfg_channels=3))
    assert values(output)[0] == [-0.5, 0.5, 1.5, 6.0, 7.0, 8.0, 9.0, 10.0]


def test_scale_1_costs_nothing() -> None:
    model = CountingModel()
    output = guided_output(model, X, TIMESTEPS, LABELS, NULL, Guidance(1.0))
    assert values(output)[0][:2] == [3.0, 4.0]
    assert model.batches == [2]


def test_scale_0_ignores_the_labels() -> None:
    output = guided_output(CountingModel(), X, TIMESTEPS, LABELS, NULL, Guidance(0.0))
    assert values(output)[0][:4] == values(output)[1][:4] == [10.0, 11.0, 12.0, 13.0]


@pytest.mark.parametrize(("interval", "batch"), [([0, 499], 2), ([500, 500], 4), ([501, 999], 2), (None, 4)])
def test_outside_its_interval_guidance_costs_nothing(interval: list[int] | None, batch: int) -> None:
    model = CountingModel()
    guided_output(model, X, TIMESTEPS, LABELS, NULL, Guidance(2.0, guidance_interval=interval))
    assert model.batches == [batch]


def test_videos_are_guided_along_their_channel_axis() -> None:
    conditional, unconditional = torch.randn(2, 3, 4, 5, 5), torch.randn(2, 3, 4, 5, 5)
    combined = combine(conditional, unconditional, 3.0, num_channels=2, channel_axis=2)
    expected = unconditional + 3.0 * (conditional - unconditional)
    assert torch.equal(combined[:, :, :2], expected[:, :, :2])
    assert torch.equal(combined[:, :, 2:], conditional[:, :, 2:])


@pytest.mark.parametrize(
    "options",
    [
        {"cfg_channels": 0},
        {"cfg_channels": "some"},
        {"guidance_interval": [5]},
        {"guidance_interval": [9, 5]},
    ],
    ids=str,
)
def test_impossible_guidance_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Guidance(1.5, **options)  # type: ignore[arg-type]


def test_more_guided_channels_than_there_are_is_refused() -> None:
    with pytest.raises(UsageError, match="5"):
        combine(X, X, 1.5, num_channels=4, cfg_channels=5)
