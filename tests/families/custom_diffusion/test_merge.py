"""The closed-form merge: optimality, special cases, and accuracy against rational arithmetic."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from families.custom_diffusion.exact_merge import exact_merge
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from genzoo.core.errors import NonFiniteError, ShapeError, UsageError
from genzoo.families.custom_diffusion.merge import correct as correct_module
from genzoo.families.custom_diffusion.merge import factor as factor_module
from genzoo.families.custom_diffusion.merge.algebra import merge_weights, merge_with_report, plan_merge
from genzoo.families.custom_diffusion.merge.factor import condition_of_triangle, factorise, without_correction

OUT, S, D, S_REG = 5, 3, 8, 21


def problem(
    seed: int, *, out: int = OUT, s: int = S, d: int = D, s_reg: int = S_REG
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W_0, C, V, C_reg in float64."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return draw(out, d), draw(s, d), draw(s, out), draw(s_reg, d)


def with_condition(C_reg: Tensor, condition: float) -> Tensor:
    """The same directions with singular values spread evenly in the exponent."""
    U, values, V_t = torch.linalg.svd(C_reg, full_matrices=False)
    return U * torch.logspace(0, -torch.log10(torch.tensor(condition)).item(), len(values)).double() @ V_t


def gap(actual: Tensor, expected: Tensor, W_0: Tensor) -> float:
    """Error relative to the size of the update."""
    return float((actual - expected).norm() / (expected - W_0).norm())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), s=st.integers(1, D - 1), s_reg=st.integers(D, 90))
def test_solution_meets_the_constraints_and_is_stationary(seed: int, s: int, s_reg: int) -> None:
    W_0, C, V, C_reg = problem(seed, s=s, s_reg=s_reg)
    W = merge_weights(W_0, C, V, C_reg)
    torch.testing.assert_close(W @ C.T, V.T, rtol=1e-8, atol=1e-8)
    # stationarity: the gradient (W - W_0) G is a combination of the rows of C
    gradient = (W - W_0) @ C_reg.T @ C_reg
    in_rows = gradient @ torch.linalg.pinv(C) @ C
    assert (gradient - in_rows).norm() <= 1e-7 * gradient.norm().clamp_min(1e-12)


@pytest.mark.parametrize("condition", [1e1, 1e3, 1e5])
def test_error_is_far_below_the_update_when_the_rank_is_full(condition: float) -> None:
    W_0, C, V, C_reg = problem(1)
    C_reg = with_condition(C_reg, condition)
    reference = exact_merge(W_0, C, V, C_reg)
    assert gap(merge_weights(W_0, C, V, C_reg), reference, W_0) < 1e-9


@pytest.mark.parametrize("s", [2, 3, 5])
def test_rank_deficient_regularisation_gives_the_limit_of_a_vanishing_ridge(s: int) -> None:
    W_0, C, V, C_reg = problem(2, s=s)
    C_reg = (C_reg * 8).round()
    C_reg[:, -3:] = C_reg[:, :3] @ torch.tensor([[1.0, 2, 0], [0, 1, 1], [3, 0, 1]]).double()
    reference = exact_merge(W_0, C, V, C_reg, Fraction(1, 10**40))
    assert gap(merge_weights(W_0, C, V, C_reg), reference, W_0) < 1e-10


def test_fewer_regularisation_rows_than_the_width_are_enough() -> None:
    W_0, C, V, C_reg = problem(3, s_reg=4)
    reference = exact_merge(W_0, C, V, C_reg, Fraction(1, 10**40))
    assert gap(merge_weights(W_0, C, V, C_reg), reference, W_0) < 1e-10


def test_rounding_in_unseen_directions_is_not_used_as_a_handle() -> None:
    W_0, C, V, C_reg = problem(4)
    C_reg[:, -1], C[:, -1] = 0, 1e-9
    W = merge_weights(W_0, C, V, C_reg)
    assert (W - W_0).norm() < 100
    torch.testing.assert_close(W @ C.T, V.T, atol=1e-6, rtol=0)


def test_merge_does_not_depend_on_the_order_of_concepts() -> None:
    W_0, C, V, C_reg = problem(5)
    C[2], order = C[0], torch.tensor([2, 0, 1])  # rows 0 and 2 conflict
    W = merge_weights(W_0, C, V, C_reg)
    torch.testing.assert_close(merge_weights(W_0, C[order], V[order], C_reg), W, rtol=1e-9, atol=1e-12)


def test_zero_change_returns_the_base() -> None:
    W_0, C, _, C_reg = problem(6)
    torch.testing.assert_close(merge_weights(W_0, C, C @ W_0.T, C_reg), W_0, rtol=0, atol=1e-13)
    assert torch.equal(merge_weights(W_0, C[:0], C[:0] @ W_0.T, C_reg), W_0)


def test_merging_one_concept_gives_its_words_its_own_values() -> None:
    W_0, C, _, C_reg = problem(7)
    taught = W_0 + torch.outer(torch.arange(OUT).double(), C[0])
    W = merge_weights(W_0, C, C @ taught.T, C_reg)
    torch.testing.assert_close(W @ C.T, taught @ C.T, rtol=1e-9, atol=1e-10)


def test_pinning_a_whole_basis_returns_the_concept_itself() -> None:
    W_0, _, _, C_reg = problem(8)
    C = problem(9, s=D)[1]
    taught = problem(10)[0]
    torch.testing.assert_close(merge_weights(W_0, C, C @ taught.T, C_reg), taught, rtol=1e-8, atol=1e-9)


def test_sequences_share_one_factor_and_equal_single_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    W_0, C, V, C_reg = problem(11)
    other, other_values = problem(12, out=7)[0], problem(12, out=7)[2]
    single = [merge_weights(W_0, C, V, C_reg), merge_weights(other, C, other_values, C_reg)]
    calls: list[int] = []
    monkeypatch.setattr(
        "genzoo.families.custom_diffusion.merge.algebra.factorise",
        lambda rows, **options: calls.append(1) or factorise(rows, **options),
    )
    together = merge_weights([W_0, other], C, [V, other_values], C_reg)
    assert len(calls) == 1
    assert all(torch.equal(a, b) for a, b in zip(together, single, strict=True))


def test_inputs_are_left_alone_and_float32_goes_in() -> None:
    given = [x.float() for x in problem(13)]
    copies = [x.clone() for x in given]
    W = merge_weights(*given)
    assert W.dtype == torch.float64
    assert all(torch.equal(a, b) for a, b in zip(given, copies, strict=True))


def test_repeated_rows_change_nothing_and_are_no_conflict() -> None:
    W_0, C, V, C_reg = problem(14)
    W = merge_weights(W_0, C, V, C_reg)
    again = [*range(S), 1, 0]
    torch.testing.assert_close(
        merge_weights(W_0, C[again], V[again], C_reg, conflicts="error"), W, rtol=1e-10, atol=1e-12
    )


def test_conflicting_rows_follow_the_policy_and_are_reported() -> None:
    W_0, C, V, C_reg = problem(15)
    C[2] = C[0]
    mean, first = (merge_weights(W_0, C, V, C_reg, conflicts=name) for name in ("mean", "first"))
    torch.testing.assert_close(mean @ C[0], (V[0] + V[2]) / 2)
    torch.testing.assert_close(first @ C[0], V[0])
    result = merge_with_report([W_0], C, [V], C_reg)
    assert result.plan.clashes == ((0, 2),)
    assert result.constraint_residual[0] == pytest.approx(float((V[0] - V[2]).abs().max() / 2))
    with pytest.raises(UsageError, match="rows 0 and 2"):
        merge_weights(W_0, C, V, C_reg, conflicts="error")


def test_nearly_dependent_rows_are_met_in_the_least_squares_sense() -> None:
    W_0, C, V, C_reg = problem(16)
    C[2] = C[0] + C[1] + 1e-13 * C[2]
    W = merge_weights(W_0, C, V, C_reg)
    assert (W - W_0).norm() < 100
    residual = merge_with_report([W_0], C, [V], C_reg).constraint_residual[0]
    assert residual == pytest.approx(float((W @ C.T - V.T).abs().max()))
    assert residual > 0.1


def test_more_rows_than_the_width_are_averaged_not_refused() -> None:
    W_0, C, V, C_reg = problem(17, s=D + 3)
    W = merge_weights(W_0, C, V, C_reg)
    assert torch.isfinite(W).all()
    taught = problem(18)[0]
    torch.testing.assert_close(merge_weights(W_0, C, C @ taught.T, C_reg), taught, rtol=1e-8, atol=1e-8)


def test_report_equals_what_the_definitions_say() -> None:
    W_0, C, V, C_reg = problem(19)
    result = merge_with_report([W_0], C, [V], C_reg)
    assert result.objective[0] == pytest.approx(
        float(((result.weights[0] - W_0) @ C_reg.T).norm()), rel=1e-10
    )
    assert result.constraint_residual[0] < 1e-12
    assert result.plan.condition == pytest.approx(float(torch.linalg.cond(C_reg)), rel=1e-3)
    assert result.plan.rank == D


def test_objective_of_a_deficient_problem_equals_its_definition() -> None:
    W_0, C, V, C_reg = problem(20, s_reg=6)
    result = merge_with_report([W_0], C, [V], C_reg)
    expected = float(((result.weights[0] - W_0) @ C_reg.T).norm())
    assert result.objective[0] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert result.plan.rank == 6


def test_blocks_and_cholesky_agree_with_one_qr(monkeypatch: pytest.MonkeyPatch) -> None:
    W_0, C, V, C_reg = problem(21, s_reg=301)
    result = merge_with_report([W_0], C, [V], C_reg)
    assert result.plan.method == "cholesky"
    monkeypatch.setattr(factor_module, "BLOCK_ROWS", 17)
    monkeypatch.setattr(factor_module, "SKETCH_MAX_CONDITION", 0.0)
    blocked = merge_with_report([W_0], C, [V], C_reg)
    assert blocked.plan.method == "qr"
    torch.testing.assert_close(blocked.weights[0], result.weights[0], rtol=1e-11, atol=1e-11)


def test_rows_too_badly_conditioned_for_a_sketch_are_left_to_qr() -> None:
    _, C, _, C_reg = problem(22, s_reg=301)
    C_reg = with_condition(C_reg, 1e9)
    assert factorise(C_reg).method == "qr"
    plan = plan_merge(C, C_reg)
    assert plan.condition == pytest.approx(1e9, rel=1e-2)


@pytest.mark.parametrize(
    ("condition", "method"),
    [
        (1e1, "cholesky"),
        (5e3, "cholesky, corrected"),
        (5e4, "cholesky, corrected"),
        (2e5, "cholesky, corrected"),
        (1e6, "sketch and cholesky"),
        (1e7, "sketch and cholesky"),
    ],
)
def test_factors_of_many_rows_are_as_exact_as_qr(
    condition: float, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    W_0, C, V, C_reg = problem(25, s_reg=101)
    C_reg = with_condition(C_reg, condition)
    result = merge_with_report([W_0], C, [V], C_reg)
    assert result.plan.method == method
    reference = exact_merge(W_0, C, V, C_reg)
    found = gap(result.weights[0], reference, W_0)
    monkeypatch.setattr(factor_module, "MANY_ROWS_PER_WIDTH", 10**6)
    assert factorise(C_reg).method == "qr"
    by_qr = gap(merge_weights(W_0, C, V, C_reg), reference, W_0)
    assert found < max(1e-11, 10 * by_qr)


@pytest.mark.parametrize("condition", [1e4, 1e5])
def test_the_correction_takes_away_the_error_of_normal_equations(condition: float) -> None:
    W_0, C, V, C_reg = problem(27, s_reg=4001)
    C_reg = with_condition(C_reg, condition)
    factor = factorise(C_reg)
    assert factor.method == "cholesky, corrected"
    alone = plan_merge(C, C_reg, factor=replace(factor, rows=None)).solve(W_0, V).W
    exact = plan_merge(C, C_reg, factor=without_correction(factor)).solve(W_0, V).W
    found = gap(plan_merge(C, C_reg, factor=factor).solve(W_0, V).W, exact, W_0)
    assert found < 1e-11
    assert gap(alone, exact, W_0) > 30 * found


def test_the_correction_holds_for_weighted_targets() -> None:
    W_0, C, V, C_reg = problem(28, s_reg=4001)
    C_reg = with_condition(C_reg, 1e5)
    weights = torch.tensor([1e-3, 2.0, 1e6], dtype=torch.float64)
    factor = factorise(C_reg)
    assert factor.method == "cholesky, corrected"
    found = plan_merge(C, C_reg, factor=factor, weights=weights)
    exact = plan_merge(C, C_reg, factor=without_correction(factor), weights=weights)
    assert gap(found.solve(W_0, V).W, exact.solve(W_0, V).W, W_0) < 1e-11


def test_a_correction_that_does_not_vanish_is_left_and_the_report_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    W_0, C, V, C_reg = problem(25, s_reg=101)
    C_reg = with_condition(C_reg, 1e7)
    expected = merge_weights(W_0, C, V, C_reg)
    monkeypatch.setattr(factor_module, "CORRECTED_MAX_CONDITION", 1e8)
    monkeypatch.setattr(correct_module, "MAX_TERMS", 1)
    assert factorise(C_reg).method == "cholesky, corrected"
    result = merge_with_report([W_0], C, [V], C_reg)
    assert result.plan.method == "sketch and cholesky"
    assert gap(result.weights[0], expected, W_0) < 1e-8


def test_dependent_targets_of_many_rows_are_solved_without_the_correction() -> None:
    W_0, C, V, C_reg = problem(29, s_reg=101)
    C_reg = with_condition(C_reg, 1e4)
    C[1] = C[0] * 2
    V[1] = V[0] * 2
    result = merge_with_report([W_0], C, [V], C_reg)
    assert result.plan.method == "sketch and cholesky"
    torch.testing.assert_close(result.weights[0] @ C.T, V.T, rtol=1e-7, atol=1e-7)


def test_a_bad_sketch_only_costs_another_round(monkeypatch: pytest.MonkeyPatch) -> None:
    W_0, C, V, C_reg = problem(26, s_reg=101)
    # some rows count for everything: those are what a sketch may lose
    C_reg = with_condition(C_reg, 1e3)
    C_reg[:3] *= 1e3
    reference = exact_merge(W_0, C, V, C_reg)
    sketch = factor_module._sketch
    distortion = torch.logspace(0, 3, C_reg.shape[1], dtype=torch.float64)
    monkeypatch.setattr(factor_module, "_sketch", lambda rows: sketch(rows) * distortion)
    assert factorise(C_reg).method == "sketch and cholesky"
    assert gap(merge_weights(W_0, C, V, C_reg), reference, W_0) < 1e-10


def test_condition_of_a_singular_triangle_is_infinite() -> None:
    R = torch.eye(4, dtype=torch.float64)
    R[2, 2] = 0
    assert condition_of_triangle(R) == float("inf")


@pytest.mark.parametrize("name", ["W_0", "C", "V", "C_reg"])
def test_non_finite_input_is_named(name: str) -> None:
    tensors = dict(zip(("W_0", "C", "V", "C_reg"), problem(23), strict=True))
    tensors[name][1, 1] = float("nan")
    with pytest.raises(NonFiniteError, match=rf"^{name}"):
        merge_weights(**tensors)


def test_shapes_that_do_not_fit_are_printed() -> None:
    W_0, C, V, C_reg = problem(24)
    with pytest.raises(ShapeError, match=r"\(3, 5\)"):
        merge_weights(W_0[:-1], C, V, C_reg)
    with pytest.raises(ShapeError, match="regularisation rows"):
        merge_weights(W_0, C, V, C_reg[:, 1:])
    with pytest.raises(ShapeError, match="1 projections but 2"):
        merge_weights([W_0], C, [V, V], C_reg)
    with pytest.raises(UsageError, match="median"):
        merge_weights(W_0, C, V, C_reg, conflicts="median")
