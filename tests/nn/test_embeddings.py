"""Position, timestep and label embeddings, and label dropout."""

from __future__ import annotations

import math

import pytest
import torch

from genzoo.core.errors import ShapeError, UsageError
from genzoo.core.seeds import SampleStreams
from genzoo.nn.embeddings import (
    LabelEmbedding,
    TimestepEmbedding,
    drop_labels,
    position_parameter,
    sincos_1d,
    sincos_2d,
    timestep_features,
)


def test_sincos_1d_is_the_formula() -> None:
    table = sincos_1d(6, torch.tensor([0, 5]))
    frequencies = [1.0, 10000 ** (-1 / 3), 10000 ** (-2 / 3)]
    assert table.dtype == torch.float64
    assert table[0].tolist() == [0, 0, 0, 1, 1, 1]
    assert table[1].tolist() == pytest.approx(
        [math.sin(5 * w) for w in frequencies] + [math.cos(5 * w) for w in frequencies], abs=1e-14
    )


def test_sincos_2d_has_the_column_in_its_first_half() -> None:
    table = sincos_2d(8, 2, 3)
    assert table.shape == (6, 8)
    row, column = 1, 2
    token = table[row * 3 + column]
    assert torch.equal(token[:4], sincos_1d(4, torch.tensor([column]))[0])
    assert torch.equal(token[4:], sincos_1d(4, torch.tensor([row]))[0])


def test_widths_without_whole_halves_are_refused() -> None:
    with pytest.raises(ShapeError, match="even width, not 5"):
        sincos_1d(5, torch.arange(2))
    with pytest.raises(ShapeError, match="multiple of 4, not 6"):
        sincos_2d(6, 2)


def test_a_position_table_is_stored_but_not_trained() -> None:
    parameter = position_parameter(sincos_2d(8, 2))
    assert parameter.shape == (1, 4, 8)
    assert parameter.dtype == torch.float32
    assert not parameter.requires_grad


def test_timestep_features_have_the_cosine_first_and_take_fractions() -> None:
    features = timestep_features(torch.tensor([0.0, 2.5]), 4)
    assert features[0].tolist() == [1, 1, 0, 0]
    expected = [math.cos(2.5), math.cos(0.025), math.sin(2.5), math.sin(0.025)]
    assert features[1].tolist() == pytest.approx(expected, abs=1e-6)


def test_an_odd_number_of_features_ends_with_zero() -> None:
    features = timestep_features(torch.tensor([3, 999]), 7)
    assert features.shape == (2, 7)
    assert not features[:, -1].any()


def test_timestep_embedding_follows_the_dtype_of_its_weights() -> None:
    embedding = TimestepEmbedding(12).double()
    assert embedding(torch.tensor([1, 2, 3])).dtype == torch.float64
    assert sorted(embedding.state_dict()) == ["mlp.0.bias", "mlp.0.weight", "mlp.2.bias", "mlp.2.weight"]


def test_the_null_class_is_the_last_row() -> None:
    embedding = LabelEmbedding(3, 4)
    assert embedding.embedding_table.weight.shape == (4, 4)
    assert torch.equal(embedding(torch.tensor([3]))[0], embedding.embedding_table.weight[3])
    assert LabelEmbedding(3, 4, null_class=False).embedding_table.weight.shape == (3, 4)


@pytest.mark.parametrize(("labels", "null_class"), [([0, 4], True), ([-1, 0], True), ([3, 0], False)])
def test_labels_out_of_range_are_named(labels: list[int], null_class: bool) -> None:
    with pytest.raises(ShapeError, match=f"span .{min(labels)}, {max(labels)}."):
        LabelEmbedding(3, 4, null_class=null_class)(torch.tensor(labels))


def test_a_label_table_needs_a_class() -> None:
    with pytest.raises(UsageError, match="at least one class"):
        LabelEmbedding(0, 4)


def test_dropping_labels_depends_on_the_sample_only() -> None:
    labels = torch.arange(40) % 7
    whole = drop_labels(labels, 0.5, 7, SampleStreams.from_seeds(3, "noise", positions=range(40)))
    parts = [
        drop_labels(
            labels[i : i + 8], 0.5, 7, SampleStreams.from_seeds(3, "noise", positions=range(i, i + 8))
        )
        for i in range(0, 40, 8)
    ]
    assert torch.equal(whole, torch.cat(parts))
    assert 0 < (whole == 7).sum() < 40
    assert torch.equal(whole[whole != 7], labels[whole != 7])


def test_labels_are_dropped_as_often_as_asked() -> None:
    labels = torch.zeros(2000, dtype=torch.int64)
    dropped = drop_labels(labels, 0.1, 5, SampleStreams.from_seeds(0, positions=range(2000))) == 5
    # four standard deviations of a fair draw
    assert abs(dropped.float().mean().item() - 0.1) < 4 * (0.09 / 2000) ** 0.5


@pytest.mark.parametrize(("probability", "expected"), [(0.0, [1, 2]), (1.0, [5, 5])])
def test_certain_dropout(probability: float, expected: list[int]) -> None:
    streams = SampleStreams.from_seeds(0, positions=[0, 1])
    assert drop_labels(torch.tensor([1, 2]), probability, 5, streams).tolist() == expected


def test_dropout_must_be_a_probability() -> None:
    with pytest.raises(UsageError, match=r"not 1\.5"):
        drop_labels(torch.tensor([1]), 1.5, 5, SampleStreams.from_seeds(0, positions=[0]))
