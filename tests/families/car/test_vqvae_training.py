"""A VQVAE's training: grouped norms, hue in the loss, quantizing late, and exact resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families.car.test_car_tasks import losses, trainer
from families.car.tiny import PATCH_NUMS, pictures, saved, streams, tiny_vqvae
from torch import nn

from genzoo.core.checkpoint import latest_valid, load_checkpoint
from genzoo.core.counts import counts_of, restore_counts
from genzoo.core.errors import CheckpointError, UsageError
from genzoo.families.car.vqvae.codec import VQVAECodec
from genzoo.families.car.vqvae.losses import opponent_error
from genzoo.families.car.vqvae.quantizer import FAST, SETTLED_AFTER, SLOW, MultiScaleQuantizer
from genzoo.families.car.vqvae.task import VQVAETask
from genzoo.families.car.weights.loading import load_vqvae

LATE: dict[str, Any] = {"revive_below": 0.1, "quantize_after": 7}


def groups(model: nn.Module) -> set[tuple[int, int]]:
    return {(m.num_channels, m.num_groups) for m in model.modules() if isinstance(m, nn.GroupNorm)}


def test_norms_have_groups_of_so_many_channels_up_to_a_number_of_groups() -> None:
    assert groups(tiny_vqvae()) == {(32, 32)}
    assert groups(tiny_vqvae(ch=16, ch_mult=[1, 4], group_channels=8)) == {(16, 2), (64, 8)}
    assert groups(tiny_vqvae(ch=16, ch_mult=[1, 4], group_channels=4, norm_groups=8)) == {(16, 4), (64, 8)}


def test_a_file_tells_how_channels_are_grouped(tmp_path: Path) -> None:
    made = tiny_vqvae(group_channels=8)
    path = saved(made, tmp_path / "grouped.safetensors")
    read = load_vqvae(path, patch_nums=PATCH_NUMS)
    assert groups(read) == groups(made) != groups(tiny_vqvae())
    assert torch.equal(read.reconstruct(pictures(2)), made.reconstruct(pictures(2)))
    with pytest.raises(CheckpointError, match="norm_grouping"):
        load_vqvae(path, patch_nums=PATCH_NUMS, group_channels=4)


def test_keys_are_the_released_ones_unless_norms_are_grouped_otherwise() -> None:
    extra = tiny_vqvae(group_channels=8).state_dict().keys() - tiny_vqvae().state_dict().keys()
    assert extra == {"norm_grouping"}
    assert tiny_vqvae(**LATE).state_dict().keys() == tiny_vqvae().state_dict().keys()


def test_channels_that_cannot_be_grouped_are_refused() -> None:
    with pytest.raises(UsageError, match="16 channels cannot be split into 0"):
        tiny_vqvae(ch=16, group_channels=32)
    with pytest.raises(UsageError, match="group_channels"):
        tiny_vqvae(group_channels=0)


def test_a_wrong_hue_costs_and_a_wrong_grey_does_not() -> None:
    grey, red = torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 4, 5)
    grey += 0.4
    red[:, 0] += 0.4
    assert float(opponent_error(grey)) == 0
    assert float(opponent_error(red)) == pytest.approx((0.4 + 0.2) / 2)


def test_the_opponent_term_is_weighed_and_told() -> None:
    batch = {"pixels": pictures(2), "seen": 0}
    plain, hued = (VQVAETask(tiny_vqvae(), opponent_weight=weight) for weight in (0.0, 0.5))
    without, with_it = plain.loss(plain.model, batch), hued.loss(hued.model, batch)
    assert "opponent" not in without.metrics
    added = float((with_it.loss - without.loss).detach())
    assert added == pytest.approx(0.5 * float(with_it.metrics["opponent"]), rel=1e-5)
    with pytest.raises(UsageError, match="opponent_weight must not be negative"):
        VQVAETask(tiny_vqvae(), opponent_weight=-1)


def test_features_pass_until_quantizing_begins() -> None:
    torch.manual_seed(0)
    made = MultiScaleQuantizer(codebook_size=12, channels=3, patch_nums=PATCH_NUMS, quantize_after=2).train()
    f = torch.randn(2, 3, 4, 4, requires_grad=True)
    for _ in range(2):
        passed = made(f)
        assert torch.equal(passed.f_hat, f)
        assert passed.ids == []
        passed.loss.backward()
        assert all(p.grad is not None and not p.grad.any() for p in made.parameters())
    assert not made.ema_vocab_hit_SV.any()
    begun = made(f)
    assert len(begun.ids) == 3
    assert float(begun.loss.detach()) > 0
    assert len(made.eval()(f).ids) == 3


def test_whoever_does_not_train_always_quantizes() -> None:
    made = tiny_vqvae(quantize_after=5)
    assert len(made(pictures(2))[2]) == 3
    assert counts_of(made) == {"quantize.num_updates": 0}


def test_hits_settle_after_the_first_batches_that_quantize() -> None:
    made = tiny_vqvae(quantize_after=3).train()
    for done, decay in ((3, 0.0), (4, FAST), (3 + SETTLED_AFTER, SLOW)):
        restore_counts(made, {"quantize.num_updates": done})
        if decay:
            made.quantize.ema_vocab_hit_SV.fill_(1000.0)
        made(pictures(1))
        counted = made.quantize.ema_vocab_hit_SV.sum(dim=1) - decay * 1000 * 16 * bool(decay)
        positions = torch.tensor([1.0, 4.0, 16.0])
        assert torch.allclose(counted, (1 - decay) * positions, atol=1e-2)


def test_a_run_resumed_after_the_warm_up_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    steps = SETTLED_AFTER + 20
    for name, stops in (("whole", [steps]), ("cut", [5, 61, SETTLED_AFTER + 9, steps])):
        for stop in stops:
            torch.manual_seed(0)
            task = VQVAETask(tiny_vqvae(ch=8, group_channels=4, **LATE), opponent_weight=1.0)
            trainer(task, tmp_path / name, steps=stop).fit()
    assert losses(tmp_path / "whole") == losses(tmp_path / "cut")
    whole, cut = (load_checkpoint(latest_valid(tmp_path / name / "checkpoints")) for name in ("whole", "cut"))
    assert whole.state["counts"] == {"quantize.num_updates": steps} == cut.state["counts"]
    for part in ("weights", "ema", "optimizer"):
        ours, theirs = getattr(whole, part), getattr(cut, part)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    codec = VQVAECodec(str(tmp_path / "whole"), patch_nums=PATCH_NUMS)
    assert groups(codec.vqvae) == groups(task.model)


def test_a_checkpoint_without_counts_is_read(tmp_path: Path) -> None:
    model = tiny_vqvae()
    restore_counts(model, {"quantize.num_updates": 4})
    restore_counts(model, {})
    assert counts_of(model) == {"quantize.num_updates": 4}


def test_sampling_reconstructs_what_the_model_does() -> None:
    task = VQVAETask(tiny_vqvae(group_channels=8))
    conditions = task.conditions(2, image=pictures(2))
    assert torch.equal(
        task.sample(task.model, conditions, streams(0, 1)), task.model.reconstruct(pictures(2))
    )
