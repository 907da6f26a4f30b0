"""Muon and AdamW as recipes build them, against torch's own and a float64 oracle, case by case."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from golden.manifest import golden_cases, golden_tensors
from torch import Tensor, nn

from genzoo.training.muon import muon
from genzoo.training.optim import adamw, optimizer_tensors

SET, FILE = "learning", "muon"
CASES = golden_cases(SET, FILE)
MUON = [case for case in CASES if "step_size" in case]
ADAMW = [case for case in CASES if case["name"].startswith("adamw")]
ITERATIONS = [case for case in CASES if "singular_values" in case["keys"]]
# the iteration runs in bfloat16, whose products differ between processors: shares of one step
FIRST, TENTH = 0.05, 0.25
EXACT, RATIO = 1e-9, 1e-5


def assert_near(ours: Tensor, theirs: Tensor, limit: float, what: str) -> None:
    assert ours.shape == theirs.shape, what
    gap = (ours.double() - theirs.double()).abs().max().item()
    assert gap <= limit, f"{what}: off by {gap:.3g}, allowed {limit:.3g}"


def newton_schulz(matrix: Tensor, coefficients: list[float], steps: int, eps: float) -> Tensor:
    """The quintic iteration in the precision of its input."""
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / max(x.norm().item(), eps)
    for _ in range(steps):
        product = x @ x.T
        x = a * x + (b * product + c * product @ product) @ x
    return x.T if tall else x


def ratio(shape: torch.Size, adjust: str | None) -> float:
    rows, columns = shape
    if adjust == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    share = rows / columns
    return math.sqrt(share if adjust == "spectral_unclamped" else max(1.0, share))


def oracle(data: dict[str, Tensor], options: dict[str, Any], steps: int) -> Tensor:
    """Muon's own definition in float64."""
    parameter, momentum = data["parameter"].double(), options["momentum"]
    buffer = torch.zeros_like(parameter)
    for gradient in data["gradients"][:steps].double():
        buffer = momentum * buffer + (1 - momentum) * gradient
        update = (1 - momentum) * gradient + momentum * buffer if options["nesterov"] else buffer
        turned = newton_schulz(update, options["ns_coefficients"], options["ns_steps"], options["eps"])
        parameter = parameter * (1 - options["lr"] * options["weight_decay"])
        parameter = parameter - options["lr"] * ratio(parameter.shape, options["adjust_lr_fn"]) * turned
    return parameter


def muon_values(case: dict[str, Any], data: dict[str, Tensor]) -> dict[str, Tensor]:
    """By the recipe's factory, one parameter of which is no hidden matrix."""
    options = case["options"]
    name = "blocks.0.fc1.weight"
    parameters = {name: nn.Parameter(data["parameter"].clone()), "head.bias": nn.Parameter(torch.zeros(2))}
    shared = {key: options[key] for key in ("lr", "weight_decay", "momentum", "nesterov", "ns_steps")}
    optimizer = muon(parameters, **shared, scale=options["adjust_lr_fn"] or "original").optimizer
    found = {}
    for step, gradient in enumerate(data["gradients"], 1):
        parameters[name].grad = gradient.clone()
        optimizer.step()
        found[f"after_{step}"] = parameters[name].detach().clone()
    found["momentum_buffer"] = optimizer_tensors(optimizer, parameters)[f"{name}/momentum_buffer"]
    return found | {f"exact_after_{n}": oracle(data, options, n) for n in (1, len(data["gradients"]))}


@pytest.mark.parametrize("case", MUON, ids=lambda case: case["name"])
def test_muon_steps_as_torch_and_the_oracle_do(case: dict[str, Any]) -> None:
    data = golden_tensors(SET, FILE, case["name"])
    ours, step = muon_values(case, data), case["step_size"]
    limits = {"after_1": FIRST * step, "momentum_buffer": RATIO * data["momentum_buffer"].abs().max().item()}
    assert not set(data) - {"parameter", "gradients"} - set(ours)
    for key in sorted(set(data) - {"parameter", "gradients"}):
        exact = EXACT * data[key].abs().max().item()
        limit = exact if key.startswith("exact") else limits.get(key, TENTH * step)
        assert_near(ours[key], data[key], limit, f"{case['name']}/{key}")


@pytest.mark.parametrize("case", ITERATIONS, ids=lambda case: case["name"])
def test_the_iteration_has_the_recorded_singular_values(case: dict[str, Any]) -> None:
    data = golden_tensors(SET, FILE, case["name"])
    parameter = nn.Parameter(torch.zeros_like(data["gradient"], dtype=torch.float32))
    parameter.grad = data["gradient"].float()
    plain = torch.optim.Muon([parameter], lr=1.0, weight_decay=0.0, momentum=0.0, nesterov=False)
    plain.step()
    turned = -parameter.detach() / ratio(parameter.shape, None)
    exact = newton_schulz(data["gradient"].double(), case["ns_coefficients"], case["ns_steps"], case["eps"])
    values = torch.linalg.svdvals(exact)
    assert_near(exact, data["exact"], EXACT * exact.abs().max().item(), "exact")
    assert_near(turned, data["torch_bf16"], 0.03, "torch_bf16")
    recorded = data["singular_values"].double()
    assert_near(values.sort().values, recorded.sort().values, 1e-7, "singular_values")


@pytest.mark.parametrize("case", ADAMW, ids=lambda case: case["name"])
def test_adamw_steps_as_recorded(case: dict[str, Any]) -> None:
    data, options = golden_tensors(SET, FILE, case["name"]), dict(case["options"])
    parameters = {"p": nn.Parameter(data["parameter"].clone())}
    optimizer = adamw(parameters, **{**options, "betas": tuple(options["betas"])}).optimizer
    ours = {}
    for step, gradient in enumerate(data["gradients"], 1):
        parameters["p"].grad = gradient.clone()
        optimizer.step()
        ours[f"after_{step}"] = parameters["p"].detach().clone()
    ours |= {key.removeprefix("p/"): value for key, value in optimizer_tensors(optimizer, parameters).items()}
    assert not set(data) - {"parameter", "gradients"} - set(ours)
    for key in sorted(set(data) - {"parameter", "gradients"}):
        assert_near(ours[key], data[key], 1e-10 * data[key].abs().max().item(), f"{case['name']}/{key}")


def test_every_case_is_computed() -> None:
    assert len(MUON) + len(ADAMW) + len(ITERATIONS) == len(CASES)
