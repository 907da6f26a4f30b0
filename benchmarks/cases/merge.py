"""The closed-form merge of concepts at the size of Stable Diffusion 1.5, beside the official procedure."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import compare, interleave
from benchmarks.registry import Options, case
from genzoo.families.custom_diffusion.merge.algebra import merge_with_report

WIDTH, NUM_TARGETS = 768, 14
# out x number: keys and values of the 16 cross-attention layers
PROJECTIONS = ((320, 10), (640, 10), (1280, 12))
# of the update against another algorithm in float64; 1e-9 is what the merge promises
TOLERANCE = 1e-9


def problem(num_rows: int, condition: float) -> tuple[list[Tensor], Tensor, list[Tensor], Tensor]:
    """W_0, C, V, C_reg in float32, the singular values of C_reg log-spaced over `condition`."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    outs = [out for out, number in PROJECTIONS for _ in range(number)]
    basis = torch.linalg.qr(draw(WIDTH, WIDTH)).Q
    spectrum = torch.logspace(0, -torch.log10(torch.tensor(condition)).item(), WIDTH)
    C_reg = (draw(num_rows, WIDTH) * spectrum) @ basis
    C = (draw(NUM_TARGETS, WIDTH) * spectrum.clamp_min(1e-2)) @ basis
    W_0 = [draw(out, WIDTH) / WIDTH**0.5 for out in outs]
    V = [C @ (W + 0.05 * draw(*W.shape) / WIDTH**0.5).T for W in W_0]
    return W_0, C, V, C_reg


def official_procedure(
    W_0: list[Tensor], C: Tensor, V: list[Tensor], C_reg: Tensor, *, diagnostics: bool = True
) -> list[Tensor]:
    """What the official scripts do for every matrix anew, in float32: the Gram matrix, its LU factors, a
    solve per target row, the inverse of a small matrix, and the mean residuals that they print.
    """
    merged = []
    for base, values in zip(W_0, V, strict=True):
        LU, pivots = torch.linalg.lu_factor(C_reg.T @ C_reg)
        D = torch.cat([torch.linalg.lu_solve(LU, pivots, row[:, None]).T for row in C])
        multipliers = (values.T - base @ C.T) @ torch.linalg.inv(D @ C.T)
        W = base + multipliers @ D
        if diagnostics:
            (W @ C.T - values.T).norm(dim=0).mean().item()
            (C_reg @ base.T - C_reg @ W.T).norm(dim=0).mean().item()
        merged.append(W)
    return merged


def by_svd(W_0: list[Tensor], C: Tensor, V: list[Tensor], C_reg: Tensor) -> list[Tensor]:
    """The reference, in float64: one QR, singular vectors of its factor, and a pseudo-inverse."""
    R = torch.linalg.qr(C_reg.double(), mode="r").R
    _, values, basis = torch.linalg.svd(R)
    whitened = (C.double() @ basis.T) / values
    back = torch.linalg.pinv(whitened.T) / values @ basis
    return [
        W.double() + (v.double().T - W.double() @ C.double().T) @ back for W, v in zip(W_0, V, strict=True)
    ]


def update_error(merged: list[Tensor], reference: list[Tensor], W_0: list[Tensor]) -> float:
    """The largest error of a matrix, relative to the size of its update."""
    return max(
        float((W.double() - right).norm() / (right - base.double()).norm())
        for W, right, base in zip(merged, reference, W_0, strict=True)
    )


def constraint(merged: list[Tensor], C: Tensor, V: list[Tensor]) -> float:
    """max |W C^T - V^T| over all matrices."""
    return max(
        float((W.double() @ C.double().T - v.double().T).abs().max()) for W, v in zip(merged, V, strict=True)
    )


def measure(num_rows: int, condition: float, repeats: int, *, peer: bool) -> dict[str, Any]:
    """One row of the report; refuses to time what is wrong."""
    data = problem(num_rows, condition)
    W_0, C, V, _ = data
    reference = by_svd(*data)
    merged = merge_with_report(*data)
    error = update_error(merged.weights, reference, W_0)
    if error > TOLERANCE:
        raise SystemExit(f"the merge is {error:.1e} off at {num_rows} rows, condition {condition:g}")
    row: dict[str, Any] = {
        "name": f"{num_rows} rows, condition {condition:g}",
        "method": merged.plan.method,
        "error": error,
        "constraint": constraint(merged.weights, C, V),
    }
    forms = {"genzoo": lambda: merge_with_report(*data)}
    if peer:
        official = official_procedure(*data)
        row |= {
            "official_error": update_error(official, reference, W_0),
            "official_constraint": constraint(official, C, V),
        }
        forms["official"] = lambda: official_procedure(*data)
        forms["official, nothing printed"] = lambda: official_procedure(*data, diagnostics=False)
    return row | compare("genzoo", interleave(forms, repeats))


@case("merge")
def run(options: Options) -> list[dict[str, Any]]:
    """Closed-form merge of 32 matrices, 768 wide, beside the official procedure; rows=2400,77000 selects."""
    wanted = [int(text) for text in options.settings.get("rows", "2400,77000").split(",")]
    rows = []
    for num_rows in wanted:
        for condition in (1e2, 1e4):
            # the official procedure takes minutes beyond a few thousand rows
            rows.append(measure(num_rows, condition, options.repeats, peer=num_rows <= 5000))
    return rows
