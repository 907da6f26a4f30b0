"""The closed-form merge of concepts at the sizes of Stable Diffusion, beside the official procedure."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import compare, interleave
from benchmarks.registry import Options, case
from genzoo.families.custom_diffusion.merge.algebra import merge_with_report

NUM_TARGETS = 14


@dataclass(frozen=True)
class Size:
    """width: of the text features.   projections: (out, number), keys and values of cross-attention."""

    width: int
    projections: tuple[tuple[int, int], ...]

    def outs(self) -> list[int]:
        """Of every projection."""
        return [out for out, number in self.projections for _ in range(number)]


SD15 = Size(768, ((320, 10), (640, 10), (1280, 12)))
SDXL = Size(2048, ((640, 20), (1280, 120)))
# of the update against another algorithm in float64; 1e-9 is what the merge promises
TOLERANCE = 1e-9


def problem(
    num_rows: int, condition: float, size: Size = SD15
) -> tuple[list[Tensor], Tensor, list[Tensor], Tensor]:
    """W_0, C, V, C_reg in float32, the singular values of C_reg log-spaced over `condition`."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    width = size.width
    basis = torch.linalg.qr(draw(width, width)).Q
    spectrum = torch.logspace(0, -torch.log10(torch.tensor(condition)).item(), width)
    C_reg = (draw(num_rows, width) * spectrum) @ basis
    C = (draw(NUM_TARGETS, width) * spectrum.clamp_min(1e-2)) @ basis
    W_0 = [draw(out, width) / width**0.5 for out in size.outs()]
    V = [C @ (W + 0.05 * draw(*W.shape) / width**0.5).T for W in W_0]
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


def least_work(W_0: list[Tensor], C: Tensor, V: list[Tensor], C_reg: Tensor) -> list[Tensor]:
    """One factorisation and the updates, in float64: no check, report, conflict or rank is looked at."""
    regular, rows = C_reg.double(), C.double()
    many = len(regular) > 8 * regular.shape[1]
    R = torch.linalg.cholesky(regular.T @ regular).T if many else torch.linalg.qr(regular, mode="r").R
    whitened = torch.linalg.solve_triangular(R.T, rows.T, upper=False)
    back = torch.linalg.solve_triangular(R, whitened, upper=True)
    lift = torch.linalg.solve(rows @ back, back.T)
    merged = []
    for base, values in zip(W_0, V, strict=True):
        W = base.double()
        merged.append(W.addmm_(values.double().T - W @ rows.T, lift))
    return merged


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


def measure(
    num_rows: int, condition: float, options: Options, *, peer: bool, size: Size = SD15
) -> dict[str, Any]:
    """One row of the report; refuses to time what is wrong."""
    data = problem(num_rows, condition, size)
    W_0, C, V, _ = data
    reference = by_svd(*data)
    merged = merge_with_report(*data)
    error = update_error(merged.weights, reference, W_0)
    if error > TOLERANCE:
        raise SystemExit(f"the merge is {error:.1e} off at {num_rows} rows, condition {condition:g}")
    row: dict[str, Any] = {
        "name": f"{num_rows} rows, condition {condition:g}" + (", SDXL" if size == SDXL else ""),
        "method": merged.plan.method,
        "error": error,
        "constraint": constraint(merged.weights, C, V),
    }
    forms = {"genzoo": lambda: merge_with_report(*data)}
    calls = interleave(
        {**forms, "floor": lambda: least_work(*data)}, options.repeats, clock=clock_of(options)
    )
    floor = [own / least for own, least in zip(calls["genzoo"], calls["floor"], strict=True)]
    row |= {"floor_ms": 1e3 * statistics.median(calls["floor"]), "times_floor": statistics.median(floor)}
    row["target_times_floor"] = 1.5
    if peer:
        official = official_procedure(*data)
        row |= {
            "official_error": update_error(official, reference, W_0),
            "official_constraint": constraint(official, C, V),
        }
        forms["official"] = lambda: official_procedure(*data)
        forms["official, nothing printed"] = lambda: official_procedure(*data, diagnostics=False)
    return row | compare("genzoo", interleave(forms, options.repeats, clock=clock_of(options)))


def clock_of(options: Options) -> str:
    """Whose time is measured."""
    return options.settings.get("clock", "wall")


@case("merge")
def run(options: Options) -> list[dict[str, Any]]:
    """Closed-form merge of 32 matrices, 768 wide, beside the official procedure; rows=, sdxl=yes, clock=."""
    wanted = [int(text) for text in options.settings.get("rows", "2400,77000").split(",")]
    rows = []
    for num_rows in wanted:
        for condition in (1e2, 1e4):
            # the official procedure takes minutes beyond a few thousand rows
            rows.append(measure(num_rows, condition, options, peer=num_rows <= 5000))
    if options.settings.get("sdxl") == "yes":
        rows.append(measure(2 * SDXL.width, 1e2, options, peer=False, size=SDXL))
    return rows
