"""Scan orders, 2-d convolutions, attention options: what each changes, and that each is nothing when off."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genzoo.core.errors import ShapeError, UsageError
from genzoo.families.dim.dit import DiT
from genzoo.families.dim.model import DiM
from genzoo.nn.count import count_model
from genzoo.nn.grid_order import GRID_ORDERS, GridOrder

SMALL: dict[str, Any] = {
    "depth": 2, "hidden_size": 24, "patch_size": 2, "input_size": [4, 6], "in_channels": 3, "num_classes": 5,
}  # fmt: skip


def dim(**options: Any) -> DiM:
    torch.manual_seed(3)
    return DiM(**{**SMALL, "d_state": 4, **options})


def dit(**options: Any) -> DiT:
    torch.manual_seed(3)
    return DiT(**{**SMALL, "num_heads": 3, **options})


@torch.no_grad()
def opened(model: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "adaLN_modulation" in name or "final_layer" in name:
            parameter.normal_(std=0.2)
    return model


def output(model: nn.Module) -> Tensor:
    x = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    result: Tensor = model(x, torch.tensor([10, 400]), torch.tensor([1, 5]))
    return result


def same(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("cls_token", [False, True])
def test_a_fresh_convolution_behind_each_block_changes_no_bit(cls_token: bool) -> None:
    plain, with_conv = (
        opened(dim(cls_token=cls_token)),
        opened(dim(cls_token=cls_token, conv2d="after_block")),
    )
    assert torch.equal(output(plain), output(with_conv))
    extra = set(with_conv.state_dict()) - set(plain.state_dict())
    assert extra == {f"blocks.{i}.conv2d.{part}" for i in range(2) for part in ("weight", "bias")}
    assert all(torch.equal(with_conv.state_dict()[name], value) for name, value in plain.state_dict().items())


def test_options_that_are_off_are_the_old_models() -> None:
    assert same(dim(), dim(scan_orders=["rows"], conv2d=None))
    assert torch.equal(output(opened(dim())), output(opened(dim(scan_orders=["rows", "rows"]))))
    assert same(dit(), dit(qk_norm=False, rope=False, rms_norm=False, swiglu=False, modulation_shift=True))


@pytest.mark.parametrize("order", GRID_ORDERS[1:])
@pytest.mark.parametrize("conv2d", [None, "in_mixer"])
def test_an_order_is_the_mixer_on_permuted_tokens(order: str, conv2d: str | None) -> None:
    """With the parameters of `rows`, and back in its own places."""
    tokens = torch.randn(2, 6, 24, generator=torch.Generator().manual_seed(2))
    mixer, plain = (dim(scan_orders=name).blocks[0].mixer for name in (order, "rows"))
    if conv2d is None:
        assert same(mixer, plain)
    place = GridOrder((2, 3), order)
    assert torch.equal(place.back(place.there(tokens)), tokens)
    torch.testing.assert_close(mixer(tokens), place.back(plain(place.there(tokens))))


@pytest.mark.parametrize("order", GRID_ORDERS)
def test_tokens_that_are_missing_keep_the_order_of_the_rest(order: str) -> None:
    place, kept = GridOrder((2, 3), order), torch.tensor([[0, 2, 3, 5], [1, 2, 4, 5]])
    tokens = torch.cat([torch.full((2, 1, 1), -1), kept[..., None]], dim=1)  # a class token in front
    seen = place.there(tokens, kept)
    for row, places in zip(seen[..., 0].tolist(), kept.tolist(), strict=True):
        assert row == [-1, *[int(i) for i in place.order if int(i) in places]]
    assert torch.equal(place.back(seen, kept), tokens)


def test_a_convolution_in_the_mixer_is_the_only_one_and_is_counted() -> None:
    model, plain = dim(conv2d="in_mixer"), dim()
    assert not [name for name in model.state_dict() if "conv1d" in name]
    assert model.blocks[0].mixer.conv2d.weight.shape == (48, 1, 3, 3)
    assert output(opened(model)).isfinite().all()
    assert count_model(model)["macs_conv"] - count_model(plain)["macs_conv"] == 2 * 6 * 48 * (9 - 2 * 4)
    added = count_model(dim(conv2d="after_block"))["macs_conv"] - count_model(plain)["macs_conv"]
    assert added == 2 * 6 * 24 * 9


def test_a_convolution_in_the_mixer_sees_the_plane_whatever_the_order() -> None:
    """Its output at a place depends on the neighbours in the picture before the scan begins."""
    for order in ("rows", "columns"):
        mixer = dim(conv2d="in_mixer", scan_orders=order).blocks[0].mixer
        seen: list[Tensor] = []
        mixer.conv2d.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        tokens = torch.randn(2, 6, 24, generator=torch.Generator().manual_seed(2))
        mixer(tokens)
        torch.testing.assert_close(seen[0], mixer.in_proj(tokens).chunk(2, dim=-1)[0])


OPTIONS = ["qk_norm", "rope", "rms_norm", "swiglu"]


@pytest.mark.parametrize(
    "option", [*({name: True} for name in OPTIONS), {"modulation_shift": False}], ids=str
)
def test_each_attention_option_trains_and_changes_the_output(option: dict[str, bool]) -> None:
    model = opened(dit(**option))
    result = output(model)
    assert not torch.equal(result, output(opened(dit())))
    result.square().sum().backward()
    silent = [key for key, p in model.named_parameters() if p.requires_grad and not p.grad.any()]
    # the positions of queries' norms and such move too; nothing is dead
    assert silent == []


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: dim(scan_orders="colums"), "did you mean 'columns'"),
        (lambda: dim(scan_orders=[]), "scan_orders is empty"),
        (lambda: dim(conv2d="after"), "conv2d is 'after'"),
        (lambda: dit(rope=True, hidden_size=36, num_heads=6), "multiple of 4, not 6"),
    ],
    ids=["order", "no order", "conv2d", "rope"],
)
def test_settings_that_fit_nothing_are_refused(build: Any, named: str) -> None:
    with pytest.raises((UsageError, ShapeError), match=named):
        build()
