"""In bfloat16 the convolutions of a CAR read all scales at once, and say what they say one by one."""

from __future__ import annotations

import pytest
import torch
from families.car.tiny import tiny_car
from torch import Tensor, nn

from genzoo.families.car.control import convolutions
from genzoo.families.car.control.convolutions import convolve_maps, read_together
from genzoo.families.car.control.injection import ControlEncoder

# torch's gradient of a 1 x 1 map at a stride of 2 reads memory that nobody wrote; no CAR has such a map
SIZES = {1: [(1, 1), (2, 3), (5, 4)], 2: [(2, 2), (2, 3), (5, 4)]}


def maps_of(channels: int, sizes: list[tuple[int, int]]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(2, channels, *size, generator=generator) for size in sizes]
    return [map_.bfloat16().requires_grad_() for map_ in drawn]


def gradients(outputs: list[Tensor], leaves: list[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    given = [torch.randn(out.shape, generator=generator).bfloat16() for out in outputs]
    return list(torch.autograd.grad(outputs, leaves, given))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("most", [0, 1000])
def test_maps_read_together_are_those_read_one_by_one(
    stride: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolutions, "MOST_PLACES", most)
    torch.manual_seed(0)
    convolution, maps = nn.Conv2d(6, 7, 3, padding=1, stride=stride), maps_of(6, SIZES[stride])
    exact = convolution(maps[1].float())
    leaves = [*maps, convolution.weight, convolution.bias]
    with torch.autocast("cpu", torch.bfloat16):
        apart = [convolution(map_) for map_ in maps]
        together = convolve_maps(maps, convolution)
    assert [out.dtype for out in together] == [torch.bfloat16] * 3
    torch.testing.assert_close(together[1].float(), exact, rtol=0.02, atol=0.02)
    torch.testing.assert_close(together, apart, rtol=0.01, atol=0.01)
    found, expected = gradients(together, leaves), gradients(apart, leaves)
    # bfloat16 has 8 bits, and a gradient of the weights sums 54 to 126 products
    torch.testing.assert_close(found, expected, rtol=0.03, atol=0.06)
    assert [x.dtype for x in found[3:]] == [torch.float32] * 2


def test_only_bfloat16_in_training_reads_scales_together() -> None:
    convolution, maps = nn.Conv2d(6, 7, 3, padding=1), maps_of(6, SIZES[1])
    assert not read_together(maps, convolution)
    with torch.autocast("cpu", torch.bfloat16):
        assert read_together(maps, convolution)
        with torch.no_grad():
            assert not read_together(maps, convolution)
        assert not read_together(maps, convolution.requires_grad_(False))


def steps(
    checkpointing: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[Tensor, dict[str, Tensor]]:
    monkeypatch.setattr(convolutions, "MOST_PLACES", most)
    model = tiny_car(control_checkpointing=checkpointing).train()
    generator = torch.Generator().manual_seed(0)
    controls = [torch.rand(2, *shape, generator=generator) * 2 - 1 for shape in model.control_shapes()]
    read = torch.randn(2, 20, 4, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(torch.tensor([1, 3]), read, controls)
    logits.square().mean().backward()
    return logits, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_is_the_same_however_scales_are_read(
    checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, found = steps(checkpointing, 10_000, monkeypatch)
    monkeypatch.setattr("genzoo.families.car.control.model.read_together", lambda *_: False)
    expected, before = steps(False, 10_000, monkeypatch)
    torch.testing.assert_close(logits, expected, rtol=0.02, atol=0.05 * float(expected.detach().std()))
    assert found.keys() == before.keys()
    for name, gradient in before.items():
        gap = (found[name] - gradient).norm() / gradient.norm()
        assert gap < 0.05, name


def test_the_encoder_reads_every_scale_as_it_reads_one() -> None:
    torch.manual_seed(0)
    encoder = ControlEncoder(24, [4, 6])
    pictures = [torch.rand(2, 3, 2 * height, 2 * width) for height, width in SIZES[1]]
    with torch.autocast("cpu", torch.bfloat16):
        together = encoder.all_scales(pictures)
        apart = [encoder(picture) for picture in pictures]
    torch.testing.assert_close(together, apart, rtol=0.02, atol=0.01)
