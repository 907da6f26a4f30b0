"""The mixer's laws: initial values, directions, causality, precision, and which parameters never decay."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genzoo.core.errors import ShapeError, UsageError
from genzoo.core.model_state import trainable_parameters
from genzoo.nn.mamba import MambaMixer


def build(**options: object) -> MambaMixer:
    torch.manual_seed(0)
    return MambaMixer(8, d_state=3, dt_rank=2, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mixer", "extra"),
    [("v2", {"conv1d_b", "x_proj_b", "dt_proj_b", "A_b_log", "D_b"}), ("v1", {"A_b_log"}), ("none", set())],
)
def test_keys_follow_vision_mamba(mixer: str, extra: set[str]) -> None:
    names = {name.split(".")[0] for name in build(mixer=mixer).state_dict()}
    assert names == {"in_proj", "conv1d", "x_proj", "dt_proj", "A_log", "D", "out_proj"} | extra


def test_automatic_rank_is_a_sixteenth_rounded_up() -> None:
    assert MambaMixer(40).dt_rank == 3


@pytest.mark.parametrize("suffix", ["", "_b"])
def test_initial_values_of_both_directions(suffix: str) -> None:
    mixer = MambaMixer(64, d_state=3)
    A = -getattr(mixer, f"A{suffix}_log").exp()
    dt = F.softplus(getattr(mixer, f"dt_proj{suffix}").bias)
    assert torch.allclose(A, torch.tensor([-1.0, -2.0, -3.0]).expand(128, 3))
    assert torch.equal(getattr(mixer, f"D{suffix}"), torch.ones(128))
    assert dt.min() > 0.99e-3
    assert dt.max() < 1.01e-1
    assert getattr(mixer, f"dt_proj{suffix}").weight.abs().max() <= mixer.dt_rank**-0.5


def test_compatible_init_leaves_the_reverse_step_size_near_seven_tenths() -> None:
    mixer = build(vim_compat_init=True)
    assert torch.equal(mixer.dt_proj_b.bias, torch.zeros(16))
    assert not torch.equal(mixer.dt_proj.bias, torch.zeros(16))


def test_reset_parameters_is_a_function_of_the_seed() -> None:
    mixer = build(layer_scale=0.5)
    first = {k: v.clone() for k, v in mixer.state_dict().items()}
    for parameter in mixer.parameters():
        nn.init.constant_(parameter, 9.0)
    torch.manual_seed(1)
    mixer.reset_parameters()
    torch.manual_seed(1)
    second = MambaMixer(8, d_state=3, dt_rank=2, layer_scale=0.5)
    second.reset_parameters()
    assert all((v != 9.0).all() for v in mixer.state_dict().values())
    assert set(first) == set(mixer.state_dict())
    assert torch.equal(mixer.gamma, torch.full((8,), 0.5))


def test_state_parameters_never_decay() -> None:
    assert set(trainable_parameters(build()).undecayed) == {"A_log", "D", "A_b_log", "D_b"}


def copy_branch(mixer: MambaMixer) -> MambaMixer:
    """Give the reverse direction the parameters of the forward one."""
    state = mixer.state_dict()
    for key in ("conv1d.weight", "conv1d.bias", "x_proj.weight", "dt_proj.weight", "dt_proj.bias"):
        state[key.replace(".", "_b.")] = state[key]
    state["A_b_log"], state["D_b"] = state["A_log"], state["D"]
    mixer.load_state_dict(state)
    return mixer


def test_equal_branches_commute_with_flipping_the_sequence() -> None:
    mixer = copy_branch(build()).double()
    x = torch.randn(2, 7, 8, dtype=torch.float64)
    assert torch.allclose(mixer(x.flip(1)), mixer(x).flip(1), atol=1e-13)


def test_divide_output_halves_the_sum_of_the_directions() -> None:
    x = torch.randn(2, 5, 8)
    assert torch.allclose(build(divide_output=True)(x), build()(x) / 2, atol=1e-6)


def test_divide_output_leaves_a_single_direction_as_it_is() -> None:
    x = torch.randn(2, 5, 8)
    assert torch.equal(build(divide_output=True, mixer="none")(x), build(mixer="none")(x))


def test_one_direction_is_causal_and_two_are_not() -> None:
    x = torch.randn(2, 6, 8)
    changed = x.clone()
    changed[:, 4:] += 1
    causal, both = build(mixer="none"), build()
    assert torch.equal(causal(x)[:, :4], causal(changed)[:, :4])
    assert not torch.allclose(both(x)[:, :4], both(changed)[:, :4])


@pytest.mark.parametrize("mixer", ["v2", "v1", "none"])
@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_backends_agree_on_outputs_and_gradients(backend: str, mixer: str) -> None:
    fast, exact = (
        build(mixer=mixer, scan_backend=backend),
        build(mixer=mixer, scan_backend="reference").double(),
    )
    x = torch.randn(2, 9, 8)
    out, expected = fast(x), exact(x.double())
    out.sum().backward()
    expected.sum().backward()
    assert torch.allclose(out.double(), expected, atol=1e-5)
    for (name, parameter), other in zip(fast.named_parameters(), exact.parameters(), strict=True):
        scale = other.grad.abs().max()
        assert (parameter.grad - other.grad).abs().max() < 1e-5 * scale + 1e-7, name


@pytest.mark.parametrize("mixer", ["v2", "v1", "none"])
def test_bfloat16_autocast_stays_close_and_trains_float32_parameters(mixer: str) -> None:
    model = build(mixer=mixer)
    x = torch.randn(2, 9, 8)
    expected = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(x)
    out.float().square().sum().backward()
    assert out.dtype == torch.bfloat16
    assert (out.float() - expected).norm() < 2e-2 * expected.norm()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


def test_a_strip_of_one_token_works() -> None:
    assert build()(torch.randn(3, 1, 8)).shape == (3, 1, 8)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(UsageError, match="no mixer 'v3'"):
        build(mixer="v3")
    with pytest.raises(ShapeError, match=r"\(b, l, 8\)"):
        build()(torch.zeros(2, 8, 5))
