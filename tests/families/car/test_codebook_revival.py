"""Codes that nothing chooses start anew in training, and only there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families.car.tiny import PATCH_NUMS, pictures, tiny_vqvae
from torch import Tensor

from genzoo.core.errors import UsageError
from genzoo.families.car.vqvae.quantizer import MultiScaleQuantizer


def quantizer(**options: Any) -> MultiScaleQuantizer:
    torch.manual_seed(0)
    made = MultiScaleQuantizer(codebook_size=12, channels=3, patch_nums=PATCH_NUMS, **options)
    with torch.no_grad():
        made.embedding.weight[6:] += 100.0  # nothing is near them
    return made


def features(num: int = 8) -> Tensor:
    return torch.randn(num, 3, 4, 4, generator=torch.Generator().manual_seed(5))


def used(made: MultiScaleQuantizer) -> int:
    return torch.cat(made.encode(features())[0], dim=1).unique().numel()


def test_the_first_batch_fills_the_codebook() -> None:
    made = quantizer(revive_below=0.1).train()
    before = used(made)
    made(features())
    assert used(made) > before
    assert float(made.weight.detach().abs().max()) < 50


def test_codes_in_use_stay_and_those_out_of_use_move() -> None:
    made = quantizer(revive_below=0.1).train()
    made.ema_vocab_hit_SV.fill_(5.0)
    made.ema_vocab_hit_SV[:, 6:] = 0.0
    before = made.weight.detach().clone()
    made(features())
    assert torch.equal(made.weight[:6], before[:6])
    assert float(made.weight[6:].detach().abs().max()) < 50


def test_it_is_off_by_default_and_in_evaluation() -> None:
    for made in (quantizer().train(), quantizer(revive_below=0.1).eval()):
        before = made.weight.detach().clone()
        made(features())
        assert torch.equal(made.weight, before)


def test_the_draw_is_that_of_the_global_seed() -> None:
    made = [quantizer(revive_below=0.1).train() for _ in range(2)]
    for one in made:
        torch.manual_seed(7)
        one(features())
    assert torch.equal(made[0].weight, made[1].weight)


def test_gradients_flow_through_a_revived_codebook() -> None:
    made = quantizer(revive_below=0.1).train()
    f = features().requires_grad_()
    made(f).loss.backward()
    for gradient in (f.grad, made.weight.grad):
        assert gradient is not None
        assert gradient.abs().sum() > 0


def test_narrow_networks_have_a_group_for_each_channel() -> None:
    model = tiny_vqvae(ch=8)
    assert {norm.num_groups for norm in model.modules() if isinstance(norm, torch.nn.GroupNorm)} == {8}
    assert model.decode(model.encode(pictures(2))).shape == (2, 3, 8, 8)
    with pytest.raises(UsageError, match="ch is 12"):
        tiny_vqvae(ch=12)


def test_a_share_of_one_would_move_every_code() -> None:
    with pytest.raises(UsageError, match="revive_below"):
        quantizer(revive_below=1.0)
