"""Packed weights: the same numbers, only without gradients, and nothing left afterwards."""

from __future__ import annotations

import copy
import os

import pytest
import torch
from torch import Tensor, nn

from genzoo.api import create_model
from genzoo.kernels.gelu import TanhGelu
from genzoo.nn import packed as packed_module
from genzoo.nn.compiled import compile_blocks
from genzoo.nn.evaluating import evaluating
from genzoo.nn.few_launches import linear_gelu
from genzoo.nn.packed import linear_of, packed, packs_kept, unavailable_reason

pytestmark = pytest.mark.skipif(
    unavailable_reason() is not None, reason=f"nothing is packed here: {unavailable_reason()}"
)
WIDTH, OUT = 300, 257  # odd, and large enough


@pytest.fixture
def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(WIDTH, OUT)


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(1))


def entries() -> int:
    return len(packed_module._kept or ())


@pytest.mark.parametrize("shape", [(1,), (7,), (2, 19), (3, 5, 600)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_products_in_bfloat16_are_the_bits_of_torch(shape: tuple[int, ...], bias: bool) -> None:
    layer, x = nn.Linear(WIDTH, OUT, bias=bias), rows(*shape)
    half = copy.deepcopy(layer).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        expected = layer(x)
        with packed(layer):
            found = layer(x)
            assert entries() == 1
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected)
    with packed(half):
        assert torch.equal(half(x.bfloat16()), expected)
        assert entries() == 1


@torch.no_grad()
def test_products_in_float32_are_equal_to_rounding(layer: nn.Linear) -> None:
    x = rows(3, 41)
    expected = layer(x.double().float())
    with packed(layer):
        found = layer(x)
        assert entries() == 1
    torch.testing.assert_close(found, expected, rtol=0, atol=float(2e-6 * expected.abs().max()))


@pytest.mark.parametrize(("dtype", "error"), [("fp32", 2e-6), ("bf16", 8e-3)])
@torch.no_grad()
def test_gelu_within_the_product_is_that_of_the_exact_product(
    layer: nn.Linear, dtype: str, error: float
) -> None:
    x = rows(2, 33)
    exact = nn.functional.gelu(copy.deepcopy(layer).double()(x.double()), approximate="tanh")
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"), packed(layer):
        found = linear_gelu(layer, TanhGelu(), x)
        assert entries() == 1
    assert float((found.double() - exact).abs().max()) <= error * float(exact.abs().max())


@torch.no_grad()
def test_columns_of_a_wider_tensor_are_read_where_they_lie(layer: nn.Linear) -> None:
    wide = torch.randn(2, 9, WIDTH + 31)
    x = wide[..., 17 : 17 + WIDTH]
    with packed(layer):
        torch.testing.assert_close(layer(x), layer(x.contiguous()), rtol=0, atol=0)


@torch.no_grad()
def test_a_bias_of_the_callers_own_takes_the_place_of_the_layers(layer: nn.Linear) -> None:
    x, bias = rows(5), torch.randn(OUT)
    expected = nn.functional.linear(x, layer.weight, bias)
    assert torch.equal(linear_of(layer, x, bias), expected)
    with packed(layer):
        torch.testing.assert_close(linear_of(layer, x, bias), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(linear_of(layer, x, None), expected - bias, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_weights_that_change_are_packed_again(layer: nn.Linear) -> None:
    x = rows(6)
    with packed(layer):
        before = layer(x)
        layer.weight.mul_(2)
        torch.testing.assert_close(
            layer(x),
            2 * before - layer.bias,
            rtol=1e-5,
            atol=1e-5,  # type: ignore[operator]
        )
        layer.weight.data = torch.zeros_like(layer.weight)  # no new version
        torch.testing.assert_close(layer(x), layer.bias.expand(6, -1))
        assert entries() == 1


def test_gradients_are_those_of_torch(layer: nn.Linear) -> None:
    x = rows(4)
    expected = torch.autograd.grad(layer(x).square().sum(), layer.weight)[0]
    with packed(layer):
        assert torch.equal(torch.autograd.grad(layer(x).square().sum(), layer.weight)[0], expected)
        assert entries() == 0


@torch.no_grad()
def test_nothing_is_left_after_the_block_or_its_failure(layer: nn.Linear) -> None:
    def fail() -> None:
        with evaluating(layer):
            layer(rows(2))
            assert entries() == 1
            raise RuntimeError("within")

    with pytest.raises(RuntimeError, match="within"):
        fail()
    assert packed_module._kept is None
    assert "forward" not in layer.__dict__
    assert layer.training


@torch.no_grad()
def test_an_outer_block_packs_once_for_all_inside(layer: nn.Linear) -> None:
    with packs_kept():
        for _ in range(2):
            with evaluating(layer), evaluating(layer):
                layer(rows(2))
            assert entries() == 1
        (first,) = packed_module._kept.values()  # type: ignore[union-attr]
        with evaluating(layer):
            layer(rows(3))
        assert packed_module._kept is not None
        assert packed_module._kept[id(layer.weight), torch.float32][2] is first[2]
    assert packed_module._kept is None


@torch.no_grad()
def test_hooks_are_called_and_copies_are_plain_layers(layer: nn.Linear) -> None:
    seen = []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    x = rows(2)
    expected = layer(x)
    with packed(layer):
        layer(x)
        # a hook sees the layer's own output, without the GELU
        linear_gelu(layer, TanhGelu(), x)
        copied = copy.deepcopy(layer)
    assert seen == [(2, OUT)] * 3
    torch.testing.assert_close(copied(x), expected, rtol=0, atol=0)


@torch.no_grad()
def test_small_layers_other_dtypes_and_compiled_models_run_as_they_are(
    layer: nn.Linear, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, exact = nn.Linear(16, 24), nn.Linear(WIDTH, OUT).double()
    with packed(nn.ModuleList([small, exact, layer])):
        small(torch.zeros(3, 16))
        exact(rows(2).double())
        assert entries() == 0
        layer(rows(2))
        assert entries() == 1
    monkeypatch.setenv("GENZOO_PACK", "0")
    with packed(layer):
        layer(rows(2))
        assert entries() == 0
    monkeypatch.delenv("GENZOO_PACK")
    model = create_model("dit_s8", num_classes=3, input_size=8)
    compile_blocks(model, backend="eager")
    with packed(model):
        assert not any("forward" in module.__dict__ for module in model.modules())


@torch.no_grad()
def test_a_large_model_gets_no_second_copy_of_its_weights(
    layer: nn.Linear, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_module, "MOST", layer.weight.nbytes - 1)
    with packed(layer):
        layer(rows(2))
        assert entries() == 0
        # in place of the copy that autocast would make
        with torch.autocast("cpu", torch.bfloat16):
            layer(rows(2))
        assert entries() == 1


MODELS = {
    "dim": lambda: create_model("dim_s8", num_classes=3, input_size=16, depth=2),
    "dit": lambda: create_model("dit_s8", num_classes=3, input_size=16, depth=2),
    "matten": lambda: create_model("matten_s", num_classes=3, input_size=8, num_frames=2, depth=2),
    "latte": lambda: create_model("latte_s", num_classes=3, input_size=8, num_frames=2, depth=2),
    "var": lambda: create_model("var_d16", depth=2, num_classes=3, patch_nums=(1, 2, 3)),
}


def arguments_of(name: str, model: nn.Module) -> tuple[Tensor, ...]:
    if name == "var":
        return tuple(model.example_inputs())  # type: ignore[operator]
    side = 16 if name in ("dim", "dit") else 8
    shape = (1, 4, side, side) if name in ("dim", "dit") else (1, 2, 4, side, side)
    return torch.randn(shape), torch.tensor([17]), torch.tensor([2])


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_every_family_samples_by_packed_weights(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape) * 0.01)
    arguments = arguments_of(name, model)
    expected = model.eval()(*arguments)
    with evaluating(model):
        found = model(*arguments)
        assert entries() >= 6
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=float(1e-5 * expected.abs().max()))


def test_the_switch_is_read_at_every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    assert os.environ.get("GENZOO_PACK") != "0"
    monkeypatch.setenv("GENZOO_PACK", "0")
    assert unavailable_reason() == "GENZOO_PACK is 0"
