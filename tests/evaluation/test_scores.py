"""Inception Score and KID: known answers and peers."""

from __future__ import annotations

import pytest
import torch

from genzoo.core.errors import DataError, NonFiniteError, ShapeError, UsageError
from genzoo.evaluation.measures.inception_score import inception_score_adm, inception_score_torch_fidelity
from genzoo.evaluation.measures.kid import kernel_distance, polynomial_mmd


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_constant_predictions_score_one() -> None:
    assert inception_score_adm(torch.full((40, 7), 1 / 7)).mean == pytest.approx(1.0)
    assert inception_score_torch_fidelity(torch.zeros(40, 7)).mean == pytest.approx(1.0)


def test_confident_and_balanced_predictions_score_the_number_of_classes() -> None:
    one_hot = torch.eye(7, dtype=torch.float64).repeat(5, 1)
    assert inception_score_adm(one_hot).mean == pytest.approx(7.0)


def test_one_class_only_scores_one_without_nan() -> None:
    probabilities = torch.zeros(20, 5)
    probabilities[:, 2] = 1
    assert inception_score_adm(probabilities).mean == pytest.approx(1.0)


def test_split_size_changes_the_number_and_the_last_split_may_be_short() -> None:
    probabilities = draw(23, 6).softmax(1)
    parts = [inception_score_adm(part).mean for part in probabilities.split(10)]
    assert inception_score_adm(probabilities, split_size=10).mean == pytest.approx(sum(parts) / 3)
    assert inception_score_adm(probabilities).mean != pytest.approx(sum(parts) / 3)


def test_without_shuffle_and_with_equal_splits_the_two_forms_agree() -> None:
    logits = draw(40, 9)
    ours = inception_score_adm(logits.softmax(1), split_size=10)
    theirs = inception_score_torch_fidelity(logits, splits=4, shuffle=False)
    assert ours == pytest.approx(theirs, rel=1e-9)


def test_bad_scores_are_refused() -> None:
    with pytest.raises(DataError, match="10 splits need at least 10 images, got 4"):
        inception_score_torch_fidelity(torch.zeros(4, 3))
    with pytest.raises(NonFiniteError):
        inception_score_adm(torch.full((4, 3), torch.nan))


@pytest.mark.parametrize("estimator", ["unbiased", "biased", "u-statistic"])
def test_mmd_against_the_definition(estimator: str) -> None:
    x, y = draw(11, 4), draw(11, 4, seed=1)
    kernel = lambda a, b: (a @ b.T / 4 + 1) ** 3  # noqa: E731
    within = kernel(x, x) + kernel(y, y)
    cross = kernel(x, y)
    off = ~torch.eye(11, dtype=torch.bool)
    expected = {
        "biased": within.mean() - 2 * cross.mean(),
        "unbiased": within[off].mean() - 2 * cross.mean(),
        "u-statistic": within[off].mean() - 2 * cross[off].mean(),
    }[estimator]
    assert polynomial_mmd(x, y, estimator=estimator) == pytest.approx(float(expected), rel=1e-9)


def test_kid_agrees_with_torch_fidelity_on_the_same_features() -> None:
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = draw(90, 6), draw(80, 6, seed=1) + 0.2
    ours = kernel_distance(x, y, subsets=7, subset_size=30, seed=5)
    theirs = kid_features_to_metric(x, y, kid_subsets=7, kid_subset_size=30, rng_seed=5, verbose=False)
    assert ours.mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)
    assert ours.std == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-9)


def test_kid_of_a_set_with_itself_is_small_and_grows_with_a_shift() -> None:
    x = draw(200, 6)
    values = [kernel_distance(x, x + shift, subsets=5, subset_size=100).mean for shift in (0.0, 0.3, 0.8)]
    assert values == sorted(values)
    assert abs(values[0]) < 0.2 < values[2]


def test_kid_refuses_small_sets_unequal_sets_and_unknown_estimators() -> None:
    with pytest.raises(DataError, match="subsets of 1000 need that many images"):
        kernel_distance(draw(50, 3), draw(2000, 3))
    with pytest.raises(ShapeError):
        polynomial_mmd(draw(5, 3), draw(6, 3))
    with pytest.raises(UsageError, match="no MMD estimator 'best'"):
        polynomial_mmd(draw(5, 3), draw(5, 3), estimator="best")
