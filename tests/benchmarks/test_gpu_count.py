"""Counting on a GPU that is not there: launches, bytes, and that gradients are torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.cases import gpu_count
from benchmarks.fake_gpu import autocast, saved_bytes, walk_backward
from benchmarks.launch_counter import CEILINGS, counted_gpu
from genzoo.families.dim.dit import DiT
from genzoo.families.dim.model import DiM

SMALL = {"depth": 2, "hidden_size": 24, "patch_size": 2, "input_size": 6, "in_channels": 3, "num_classes": 5}


@pytest.mark.parametrize("kind", ["dim", "dit"])
def test_the_walked_backward_gives_torchs_gradients(kind: str) -> None:
    torch.manual_seed(0)
    model = DiM(**SMALL, d_state=4) if kind == "dim" else DiT(**SMALL, num_heads=3)  # type: ignore[arg-type]
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    x, timesteps, labels = torch.randn(2, 3, 6, 6), torch.tensor([3, 700]), torch.tensor([1, 5])
    parameters = [p for p in model.parameters() if p.requires_grad]
    walked = walk_backward(model(x, timesteps, labels).square().mean())
    expected = torch.autograd.grad(model(x, timesteps, labels).square().mean(), parameters)
    for parameter, grad in zip(parameters, expected, strict=True):
        assert (walked[id(parameter)] - grad).norm() <= 1e-6 * grad.norm()


def test_what_is_counted() -> None:
    def counted(call: object) -> tuple[int, int, float]:
        with counted_gpu() as counter:
            a, b = torch.zeros(4, 5, device="cuda"), torch.zeros(5, 7, device="cuda")
            with counter:
                call(a, b)  # type: ignore[operator]
        return counter.launches, counter.bytes, counter.flops

    assert counted(lambda a, b: a + 1) == (1, 2 * 80, 0)
    assert counted(lambda a, b: a + a) == (1, 2 * 80, 0)
    assert counted(lambda a, b: a.t()[1:].reshape(-1)) == (1, 2 * 64, 0)  # a copy; the views are none
    assert counted(lambda a, b: (a.view(20), torch.empty_like(a), a.detach())) == (0, 0, 0)
    assert counted(lambda a, b: a[:1].expand(4, 5) * 2) == (1, 20 + 80, 0)
    assert counted(lambda a, b: a.zero_()) == (1, 80, 0)
    assert counted(lambda a, b: a.mul_(2)) == (1, 2 * 80, 0)
    assert counted(lambda a, b: torch._foreach_neg([a, b])) == (1, 2 * (80 + 140), 0)
    assert counted(lambda a, b: torch._foreach_neg_([a, b])) == (1, 2 * (80 + 140), 0)
    assert counted(lambda a, b: torch._foreach_copy_([a.half(), b.half()], [a, b])) == (3, 2 * 330, 0)
    assert counted(lambda a, b: a @ b) == (1, 80 + 140 + 112, 2 * 4 * 5 * 7)


def test_time_is_the_largest_of_three_limits() -> None:
    with counted_gpu() as counter:
        large = torch.zeros(10**9, device="cuda")
        with counter:
            large.zero_()
    assert counter.seconds == pytest.approx(4e9 / CEILINGS["bytes_per_second"])
    with counted_gpu() as counter:
        small = torch.zeros(1, device="cuda")
        with counter:
            small.zero_()
    assert counter.seconds == CEILINGS["seconds_per_launch"]


def test_a_storage_is_saved_once_and_parameters_never() -> None:
    layer = nn.Linear(3, 5, bias=False)
    with saved_bytes(layer) as saved:
        x = torch.zeros(2, 3, requires_grad=True)
        y = layer(x)
        (y * y + y.t().exp().t()).sum()
    assert sorted(saved) == [24, 40, 40]  # x, y, and the result of exp


def test_layers_of_a_model_run_on_the_fused_kernels() -> None:
    with counted_gpu() as counter:
        with torch.device("cuda"):
            model = DiM(**SMALL, d_state=4)  # type: ignore[arg-type]
        inputs = gpu_count.repeated(model, 2)
        with autocast(torch.bfloat16), counter:
            loss = model(*inputs).square().mean()
        forward = {name: int(row[0]) for name, row in counter.by_name.items()}
        with counter:
            walk_backward(loss)
    # of each layer; the final layer has a norm more
    assert (forward["conv.forward_kernel"], forward["adaln.forward_kernel"]) == (2, 2 * 3 + 1)
    assert counter.by_name["conv.backward_kernel"][0] == 2
    assert counter.by_name["adaln.backward_kernel"][0] == 7
    assert counter.by_name["scan.backward_kernel"][0] == 2
    assert counter.by_name["triton_gelu.backward_kernel"][0] == 2
    # gradients of x and z of a mixer are not copied together: one cat for each direction's dt, B, C, and the
    # six modulations
    assert counter.by_name["cat"][0] == 2 * 3 + 2
    assert counter.launches < 400


def test_a_slow_form_on_a_gpu_is_a_failure() -> None:
    with counted_gpu() as counter, torch.device("cuda"):
        model = DiM(**SMALL, d_state=4, scan_backend="torch")  # type: ignore[arg-type]
        with pytest.raises(AssertionError, match="fused kernels were not chosen"), counter:
            model(*gpu_count.repeated(model, 2))


@pytest.mark.parametrize("name", ["dit_s2", "var_d16"])
def test_a_step_has_a_row(name: str) -> None:
    row = gpu_count.training_step(name, 3)
    assert row["name"] == f"{name} train 3"
    assert row["launches"] > row["forward_launches"] > 0
    assert row["gigabytes"] > row["saved_gigabytes"] > 0
    assert row["milliseconds_h100"] >= row["teraflops"] / 600 * 1e3
