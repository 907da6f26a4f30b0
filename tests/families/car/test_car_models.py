"""VQVAE, VAR and CAR as models: cached and teacher-forced prediction agree, variants, freezing, errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families.car.tiny import (
    CODES,
    NUM_CLASSES,
    PATCH_NUMS,
    SIZES,
    pictures,
    saved,
    tiny_car,
    tiny_var,
    tiny_vqvae,
)
from golden.manifest import golden_root
from torch import Tensor, nn

from genzoo.autoregression.scales import split_scales
from genzoo.core.errors import GenzooError, ShapeError, UsageError
from genzoo.families.car.control.decoder import decoder_of
from genzoo.families.car.control.model import CAR
from genzoo.families.car.var.model import VAR
from genzoo.families.car.vqvae.model import VQVAE

VARIANTS = [
    {},
    {"shared_adaln": True},
    {"attn_l2_norm": False},
    {"fusion": "vqvae_encoder"},
    {"control_network": "conv"},
    {"injection": "zero_conv_add"},
    {"injection": "cross_norm_add"},
]


def inputs(batch: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(NUM_CLASSES + 1, (batch,), generator=generator)
    return labels, torch.randn(batch, 20, 4, generator=generator)


def controls(model: CAR, batch: int = 2, seed: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(batch, *shape, generator=generator) * 2 - 1 for shape in model.control_shapes()]


def cached(decoder: Any, read: Tensor) -> Tensor:
    """Logits of all scales from a decoder that is given the same maps as in teacher forcing."""
    parts = split_scales(torch.cat([torch.zeros(len(read), 1, 4), read], dim=1), PATCH_NUMS)
    maps = [p.transpose(1, 2).unflatten(2, (side, side)) for p, side in zip(parts, PATCH_NUMS, strict=True)]
    return torch.cat([decoder(k, None if k == 0 else maps[k]) for k in range(len(maps))], dim=1)


@pytest.mark.parametrize("options", VARIANTS[:3], ids=str)
@torch.no_grad()
def test_cached_prediction_of_var_equals_teacher_forcing(options: dict[str, Any]) -> None:
    model, (labels, read) = tiny_var(**options), inputs()
    assert torch.allclose(cached(decoder_of(model, labels), read), model(labels, read), atol=1e-5)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@torch.no_grad()
def test_cached_prediction_of_car_equals_teacher_forcing(options: dict[str, Any]) -> None:
    model, (labels, read) = tiny_car(**options), inputs()
    pyramid = controls(model)
    decoder = decoder_of(model, labels, model.encode_control(pyramid))
    forced = model(labels, read, pyramid)
    assert torch.allclose(cached(decoder, read), forced, atol=1e-5)
    shuffled = [picture.flip(0) for picture in pyramid]
    assert not torch.allclose(model(labels, read, shuffled), forced, atol=1e-3)


@torch.no_grad()
def test_one_encoded_control_serves_all_labels() -> None:
    model, (labels, read) = tiny_car(), inputs()
    pyramid = controls(model, batch=1)
    features = model.encode_control(pyramid)
    forced = model(labels, read, [picture.expand(2, -1, -1, -1) for picture in pyramid])
    assert torch.allclose(cached(decoder_of(model, labels, features), read), forced, atol=1e-5)


@torch.no_grad()
def test_later_scales_do_not_reach_earlier_ones() -> None:
    model, (labels, read) = tiny_var(), inputs()
    changed = read.clone()
    changed[:, 4:] += 1
    assert torch.equal(model(labels, changed)[:, :5], model(labels, read)[:, :5])
    assert torch.allclose(model(labels, read, num_scales=2), model(labels, read)[:, :5], atol=1e-5)
    assert model(labels, read, num_scales=1).shape == (2, 1, 16)


@torch.no_grad()
def test_parts_and_whole_of_the_teacher_input_read_alike() -> None:
    model, (labels, read) = tiny_var(), inputs()
    assert torch.equal(model(labels, list(read.split([4, 16], dim=1))), model(labels, read))


@torch.no_grad()
def test_zero_convolutions_leave_a_fresh_base_alone() -> None:
    torch.manual_seed(0)
    model = CAR(**SIZES, control_channels=[4, 6], injection="zero_conv_add").eval()
    labels, read = inputs()
    assert torch.equal(model(labels, read, controls(model)), model.base(labels, read))


@torch.no_grad()
def test_control_transformer_starts_as_the_first_half_of_the_base(tmp_path: Path) -> None:
    path = saved(tiny_var(), tmp_path / "var.safetensors")
    arguments: dict[str, Any] = {**SIZES, "control_channels": [4, 6], "var_weights": path}
    copied, random = CAR(**arguments), CAR(**arguments, init_from_base=False)
    base = tiny_var().state_dict()
    for key, value in copied.car_blocks.state_dict().items():
        assert torch.equal(value, base[f"blocks.{key}"])
    assert not torch.equal(random.car_blocks[0].attn.mat_qkv.weight, base["blocks.0.attn.mat_qkv.weight"])


def test_only_the_branch_learns_unless_the_base_is_thawed() -> None:
    model = tiny_car()
    assert all(name.startswith("car_") == p.requires_grad for name, p in model.named_parameters())
    assert all(p.requires_grad for p in tiny_car(freeze_base=False).parameters())


@pytest.mark.parametrize("option", ["gradient_checkpointing", "control_checkpointing"])
def test_checkpointing_changes_no_gradient(option: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = tiny_car(**{option: checkpointing}, drop_path=0.3).train()
        torch.manual_seed(4)
        model(*inputs(), controls(model)).square().mean().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 0
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def stored_bytes(model: CAR) -> dict[str, int]:
    """Bytes of activations that each block of the base and the control encoder keep for the backward pass."""
    stored = dict.fromkeys([*map(str, range(len(model.base.blocks))), "encoder"], 0)
    weights = {tensor.data_ptr() for tensor in model.parameters()}
    inside = [""]

    def keep(tensor: Tensor) -> Tensor:
        if inside[-1] and tensor.untyped_storage().data_ptr() not in weights:
            stored[inside[-1]] += tensor.nbytes
        return tensor

    named = [*zip(stored, [*model.base.blocks, model.car_control_convs], strict=True)]
    for name, module in named:
        module.register_forward_pre_hook(lambda *_, name=name: inside.append(name))
        module.register_forward_hook(lambda *_: inside.pop() and None)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(*inputs(), controls(model)).square().mean()
    loss.backward()
    return stored


def test_what_is_frozen_has_no_gradient_and_what_comes_first_stores_nothing() -> None:
    model = tiny_car().train()
    stored = stored_bytes(model)
    assert all((p.grad is None) == name.startswith("base.") for name, p in model.named_parameters())
    assert (stored["0"], stored["1"]) == (0, 0)
    assert min(stored["2"], stored["3"], stored["encoder"]) > 0


def test_a_control_that_is_encoded_again_is_not_stored() -> None:
    again = stored_bytes(tiny_car(control_checkpointing=True).train())
    once = stored_bytes(tiny_car().train())
    assert (again.pop("encoder"), once.pop("encoder") > 0) == (0, True)
    assert again == once


def test_paths_are_dropped_in_training_only() -> None:
    model, (labels, read) = tiny_var(drop_path=0.9), inputs()
    first = model(labels, read)
    assert torch.equal(model(labels, read), first)
    model.train()
    torch.manual_seed(0)
    assert not torch.equal(model(labels, read), first)


def test_dropped_paths_are_made_up_for_in_the_others() -> None:
    block = tiny_var(drop_path=0.75).blocks[-1].train()
    torch.manual_seed(0)
    branch = torch.rand(4000, 2, 3) + 1
    kept = block._drop(branch)
    survivors = kept.flatten(1).any(1)
    assert survivors.float().mean() == pytest.approx(0.25, abs=0.03)
    assert torch.allclose(kept[survivors], branch[survivors] / 0.25)
    assert not kept[~survivors].any()


@torch.no_grad()
def test_bfloat16_weights_predict_about_the_same() -> None:
    model, (labels, read) = tiny_car(), inputs()
    pyramid = controls(model)
    exact = cached(decoder_of(model, labels, model.encode_control(pyramid)), read)
    model.bfloat16()
    rounded = cached(decoder_of(model, labels, model.encode_control(pyramid)), read)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().mean() < 0.1 * exact.std()


@torch.no_grad()
def test_partial_decodes_end_with_the_whole() -> None:
    model = tiny_vqvae()
    ids = model.encode(pictures(2))
    assert [tokens.shape for tokens in ids] == [(2, side**2) for side in PATCH_NUMS]
    steps = model.decode_partial(ids)
    assert len(steps) == 3
    assert torch.equal(steps[-1], model.decode(ids))
    assert not torch.equal(steps[0], steps[-1])


@torch.no_grad()
def test_each_scale_codes_what_is_left() -> None:
    model = tiny_vqvae(codebook_size=256)
    f = model.features(pictures(3))
    errors = [(f - f_hat).square().mean().item() for f_hat in model.quantize.encode(f)[1]]
    assert len(errors) == 3
    assert min(errors) < f.square().mean().item()


@pytest.mark.parametrize("share", [0, 1, 3, 4])
@torch.no_grad()
def test_every_way_of_sharing_refinements_goes_there_and_back(share: int) -> None:
    model = tiny_vqvae(share_quant_resi=share)
    names = [name for name in model.state_dict() if "quant_resi" in name]
    assert len(names) == 2 * {0: 3, 1: 1}.get(share, share)
    ids = model.encode(pictures(2))
    _, f_hats = model.quantize.encode(model.features(pictures(2)))
    assert all(torch.equal(a, b) for a, b in zip(model.quantize.partial_sums(ids), f_hats, strict=True))


@torch.no_grad()
def test_directions_choose_codes_with_znorm() -> None:
    model = tiny_vqvae(using_znorm=True)
    table = model.quantize.weight
    z = (table[[3, 9]] * 7).T[None, :, :, None]
    assert model.quantize.nearest(z).tolist() == [[3, 9]]
    assert torch.equal(model.quantize.embed(torch.tensor([[3, 9]]), (2, 1))[0, :, :, 0].T, table[[3, 9]])


def test_hits_are_counted_in_training_and_averaged() -> None:
    model = tiny_vqvae()
    model(pictures(2))
    assert not model.quantize.ema_vocab_hit_SV.any()
    model.train()
    model(pictures(2))
    assert model.quantize.ema_vocab_hit_SV.sum(dim=1).tolist() == [2 * side**2 for side in PATCH_NUMS]
    first = model.quantize.ema_vocab_hit_SV.clone()
    ids = model(pictures(2, seed=1))[2]
    hits = torch.stack([tokens.flatten().bincount(minlength=16) for tokens in ids])
    assert torch.allclose(model.quantize.ema_vocab_hit_SV, 0.9 * first + 0.1 * hits)


MISTAKES: list[tuple[str, Any]] = [
    ("even depth", lambda: CAR(**{**SIZES, "depth": 3})),
    ("did you mean 'conv'", lambda: CAR(**SIZES, fusion="convs")),
    ("no injection 'add'", lambda: CAR(**SIZES, injection="add")),
    ("3 heads", lambda: VAR(**{**SIZES, "hidden_size": 25})),
    ("divisor of 32", lambda: VQVAE(**{**CODES, "ch": 48, "patch_nums": PATCH_NUMS})),
    ("at least one scale", lambda: VAR(**{**SIZES, "patch_nums": []})),
    (r"span \[6, 6\]", lambda: tiny_var()(torch.tensor([6]), torch.zeros(1, 20, 4))),
    ("teacher_input", lambda: tiny_var()(torch.tensor([0]), torch.zeros(1, 19, 4))),
    ("2 scales but", lambda: tiny_car()(*inputs(), controls(tiny_car())[:2])),
    (
        "scale 1",
        lambda: tiny_car()(*inputs(), [c[:, :1] if k else c for k, c in enumerate(controls(tiny_car()))]),
    ),
    ("multiples of 2", lambda: tiny_vqvae().encode(torch.zeros(1, 3, 7, 8))),
    ("last scale", lambda: tiny_vqvae().encode(torch.zeros(1, 3, 16, 16))),
    ("do not fit", lambda: tiny_vqvae().decode([torch.full((1, s * s), 16) for s in PATCH_NUMS])),
    ("2 scales were given", lambda: tiny_vqvae().decode([torch.zeros(1, 1).long()] * 2)),
]


@pytest.mark.parametrize(("message", "mistake"), MISTAKES, ids=[message for message, _ in MISTAKES])
def test_mistakes_are_named(message: str, mistake: Any) -> None:
    with pytest.raises((UsageError, ShapeError), match=message) as caught:
        mistake()
    assert isinstance(caught.value, GenzooError)


STATISTICS = json.loads((golden_root() / "car" / "init_stats_car_d4.json").read_text())


@pytest.mark.parametrize("name", STATISTICS)
def test_fresh_weights_spread_as_the_official_ones(name: str) -> None:
    recorded = STATISTICS[name]
    model = official_size(recorded)
    state = dict(model.base.state_dict()) | {k: v for k, v in model.state_dict().items() if "car" in k}
    for key, expected in recorded["stats"].items():
        value = state[key].float()
        assert list(value.shape) == expected["shape"], key
        if value.numel() >= 64:
            # of two samples of n numbers, deviations differ by about 1 / sqrt(n)
            slack = max(0.03, 5 / value.numel() ** 0.5)
            assert value.std().item() == pytest.approx(expected["std"], rel=slack, abs=1e-8), key
        if expected["std"] == 0:
            assert value.flatten()[0].item() == pytest.approx(expected["mean"]), key
    rates = {f"blocks.{i}.drop_path": block.drop_path for i, block in enumerate(model.base.blocks)}
    rates |= {f"car_blocks.{i}.drop_path": block.drop_path for i, block in enumerate(model.car_blocks)}
    assert {key: rate for key, rate in rates.items() if rate} == pytest.approx(recorded["drop_path"])


def official_size(recorded: dict[str, Any]) -> CAR:
    """The model whose initial weights were measured, sizes read off its tensors."""
    shapes = {key: value["shape"] for key, value in recorded["stats"].items()}
    call = recorded["call"]
    width, length = shapes["pos_start"][2], shapes["pos_1LC"][1]
    patch_nums = list(range(1, shapes["lvl_embed.weight"][0] + 1))
    assert sum(side**2 for side in patch_nums) == length
    torch.manual_seed(0)
    model = CAR(
        depth=call["depth"],
        hidden_size=width,
        num_heads=call["depth"],
        patch_nums=patch_nums,
        num_classes=shapes["class_emb.weight"][0] - 1,
        in_channels=shapes["word_embed.weight"][1],
        codebook_size=shapes["head.weight"][0],
        drop_path=0.1 * call["depth"] / 24,
        shared_adaln=call.get("shared_aln", False),
        init_from_base=False,
    )
    restart(model.base, call.get("init_adaln_gamma", 1e-5))
    return model


def restart(base: VAR, init_adaln_gamma: float) -> None:
    for block in base.blocks:
        if hasattr(block, "ada_gss"):
            nn.init.normal_(block.ada_gss, std=base.hidden_size**-0.5)
    base.arguments["init_adaln_gamma"] = init_adaln_gamma
    base.reset_parameters()
