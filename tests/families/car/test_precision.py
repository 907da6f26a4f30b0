"""Sampling with 16-bit copies of the weights: nearly the same tokens, and never a stale copy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from families.car.tiny import pictures, streams, tiny_car, tiny_task, tiny_var
from safetensors.torch import save_file
from torch import nn

from genzoo.core.errors import UsageError
from genzoo.families.car.var.bf16_copy import HalfCopy, halved
from genzoo.families.car.vqvae.codec import VQVAECodec
from genzoo.families.car.vqvae.model import VQVAE
from genzoo.kernels.native import build
from genzoo.training.config import TrainConfig
from genzoo.training.ema import ParameterAverage

GREEDY = {"guidance_scale": 2.5, "top_k": 1}


@pytest.mark.parametrize("kind", ["var", "car"])
def test_tokens_and_pictures_stay_close(kind: str, tmp_path: Path) -> None:
    task = tiny_task(tmp_path, tiny_var() if kind == "var" else tiny_car(), control=None)
    control = {"control": pictures(1)} if kind == "car" else {}
    conditions = task.conditions(20, **control)
    exact, rounded = (
        task.sample_scales(task.model, conditions, streams(*range(20)), **GREEDY, precision=precision)
        for precision in ("fp32", "bf16")
    )
    same = torch.cat([(a == b).flatten() for a, b in zip(exact.ids, rounded.ids, strict=True)]).float()
    assert same.mean() > 0.85
    assert task.model.training is False
    assert all(parameter.dtype == torch.float32 for parameter in task.model.parameters())
    made = task.sample(task.model, conditions, streams(*range(20)), **GREEDY, precision="bf16")
    assert made.dtype == torch.float32
    whole = task.sample(task.model, conditions, streams(*range(20)), **GREEDY)
    assert (made - whole).abs().median() < 0.02


def test_a_copy_follows_its_weights() -> None:
    model, copies = tiny_var(), HalfCopy()
    first = copies(model)
    assert copies(model) is first
    assert {p.dtype for p in first.parameters()} == {torch.bfloat16}
    assert first.lvl_1L.dtype == torch.int64
    with torch.no_grad():
        model.head.bias.add_(1)
    second = copies(model)
    assert second is not first
    assert torch.equal(second.head.bias, model.head.bias.bfloat16())
    assert torch.equal(halved(model).head.bias, second.head.bias)
    other = tiny_var(seed=5)
    assert torch.equal(copies(other).head.bias, other.head.bias.bfloat16())


def average_of(model: nn.Module) -> ParameterAverage:
    """An average that is not the weights."""
    average = ParameterAverage(
        dict(model.named_parameters()), TrainConfig(steps=1, batch_size=1, ema_decay=0.5)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.25)
    return average


def test_copies_follow_an_average_that_is_swapped_in_and_out() -> None:
    model, copies = tiny_var(), HalfCopy()
    average = average_of(model)
    raw = copies(model).head.bias.clone()
    with average.swapped_in():
        assert torch.equal(copies(model).head.bias, model.head.bias.bfloat16())
        assert not torch.equal(copies(model).head.bias, raw)
    assert torch.equal(copies(model).head.bias, raw)


def test_a_control_is_encoded_anew_by_an_average_that_is_swapped_in_and_out(tmp_path: Path) -> None:
    model = tiny_car()
    encode, control = tiny_task(tmp_path, model).encode_control, pictures(1)
    average = average_of(model)
    with torch.no_grad():
        raw = encode(model, control)
        assert encode(model, control) is raw
        with average.swapped_in():
            averaged = encode(model, control)
            assert averaged is not raw
            assert not torch.equal(averaged[0], raw[0])
        again = encode(model, control)
    assert all(torch.equal(one, other) for one, other in zip(again, raw, strict=True))


def test_the_decoder_has_a_copy_too(tmp_path: Path) -> None:
    codec = tiny_task(tmp_path, tiny_var()).codec
    latents = codec.moments(pictures(3))
    exact, rounded = codec.decode(latents), codec.decode(latents, precision="bf16")
    assert rounded.dtype == torch.float32
    assert 0 < (exact - rounded).abs().max() < 0.05
    assert torch.equal(codec.decode(latents), exact)


@pytest.mark.skipif(build.unavailable_reason() is not None, reason="no C compiler on this machine")
def test_a_decoder_of_whole_vectors_runs_channels_last(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "wide.safetensors"
    save_file(VQVAE(ch=32, ch_mult=(1, 2), num_res_blocks=1, patch_nums=(1, 4)).state_dict(), weights)
    codec = VQVAECodec(str(weights), patch_nums=(1, 4))
    features = torch.randn(2, 32, 4, 4, generator=torch.Generator().manual_seed(0))
    exact, rounded = codec.decode(features), codec.decode(features, precision="bf16")
    assert rounded.is_contiguous()
    assert 0 < (exact - rounded).abs().max() < 0.1 * exact.abs().max()
    copied = codec._half(codec._decoder)[1].conv_in.weight  # type: ignore[index, union-attr]
    assert copied.is_contiguous(memory_format=torch.channels_last)
    assert codec.vqvae.decoder.conv_in.weight.is_contiguous()


def test_other_precisions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="use fp32 or bf16"):
        tiny_task(tmp_path, tiny_var(), sampler={"precision": "fp8"})
