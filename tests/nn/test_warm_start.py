"""Beginning with another model's weights: which block fills which, and the fate of every tensor."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genzoo.core.errors import WeightsError
from genzoo.families.dim.dit import DiT
from genzoo.families.dim.model import DiM
from genzoo.families.dim.video import DiMVideo
from genzoo.families.matten.latte import Latte
from genzoo.families.matten.model import Matten
from genzoo.nn.warm_start import kinds_of_blocks, warm_start

IMAGE: dict[str, Any] = {
    "hidden_size": 24, "patch_size": 2, "input_size": 6, "in_channels": 3, "num_classes": 5,
}  # fmt: skip
CLIP: dict[str, Any] = {**IMAGE, "num_frames": 4}
HEADS, MAMBA = {"num_heads": 3}, {"d_state": 4}


def trained(model: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def block(model: nn.Module, number: int, within: str = "") -> dict[str, Tensor]:
    prefix = f"blocks.{number}.{within}"
    return {
        key.removeprefix(prefix): value for key, value in model.state_dict().items() if key.startswith(prefix)
    }


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


CASES = {
    # (target, source, block of the target -> block of the source that fills it)
    "dit to latte, spatial": (
        lambda: Latte(depth=4, **CLIP, **HEADS), lambda: DiT(depth=2, **IMAGE, **HEADS), {0: 0, 2: 1},
    ),
    "dit to latte, every block": (
        lambda: Latte(depth=2, **CLIP, **HEADS), lambda: DiT(depth=2, **IMAGE, **HEADS), {0: 0, 1: 1},
    ),
    "dim to dim_video, spatial": (
        lambda: DiMVideo(depth=4, **CLIP, **MAMBA), lambda: DiM(depth=2, **IMAGE, **MAMBA), {0: 0, 2: 1},
    ),
    "latte to matten 3": (
        lambda: Matten(depth=4, **CLIP, **HEADS, **MAMBA), lambda: Latte(depth=4, **CLIP, **HEADS),
        {0: 0, 1: 1, 3: 2, 4: 3},
    ),
    "dit to matten 3, spatial": (
        lambda: Matten(depth=4, **CLIP, **HEADS, **MAMBA), lambda: DiT(depth=2, **IMAGE, **HEADS),
        {0: 0, 3: 1},
    ),
    "a deeper dit to latte": (
        lambda: Latte(depth=2, **CLIP, **HEADS), lambda: DiT(depth=5, **IMAGE, **HEADS), {0: 0, 1: 2},
    ),
    "a shallower dit to latte": (
        lambda: Latte(depth=6, **CLIP, **HEADS), lambda: DiT(depth=2, **IMAGE, **HEADS), {0: 0, 1: 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_blocks_are_filled_by_their_kind_in_order(name: str) -> None:
    build_target, build_source, expected = CASES[name]
    model, source = build_target(), trained(build_source())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fates = warm_start(model, source.state_dict())
    for number in kinds_of_blocks(list(before)):
        if number in expected:
            assert same(block(model, number), block(source, expected[number]))
        else:
            kept = {key: value for key, value in before.items() if key.startswith(f"blocks.{number}.")}
            assert same(block(model, number), {key.split(".", 2)[2]: value for key, value in kept.items()})
    assert torch.equal(model.x_embedder.proj.weight, source.x_embedder.proj.weight)
    assert torch.equal(model.y_embedder.embedding_table.weight, source.y_embedder.embedding_table.weight)
    targets = [fate.target for fate in fates if fate.target]
    assert sorted(targets) == sorted(before)
    sources = [fate.source for fate in fates if fate.source]
    assert sorted(sources) == sorted(source.state_dict())


def test_matten_takes_dims_mixers_and_the_modulations_of_the_mixer() -> None:
    model, source = Matten(depth=4, **CLIP, **HEADS, **MAMBA), trained(DiM(depth=2, **IMAGE, **MAMBA))
    fates = {fate.target: fate for fate in warm_start(model, source.state_dict()) if fate.target}
    for ours, theirs in {2: 0, 5: 1}.items():
        assert same(block(model, ours, "mixer."), block(source, theirs, "mixer."))
        taken, whole = block(model, ours, "adaLN"), block(source, theirs, "adaLN")
        assert all(torch.equal(taken[key], whole[key][: 3 * 24]) for key in taken)
    assert fates["blocks.2.adaLN_modulation.1.bias"].why == "copied, the first 72 of 144 rows, (72,)"
    assert fates["blocks.0.attn.qkv.weight"].why == "fresh: no block of the source is left for this one"
    assert fates["temp_embed"].why == "fixed table, built anew"


def test_two_sources_fill_both_kinds_of_blocks() -> None:
    model = Matten(depth=2, **CLIP, **HEADS, **MAMBA)
    dim, latte = trained(DiM(depth=1, **IMAGE, **MAMBA)), trained(Latte(depth=2, **CLIP, **HEADS), 1)
    warm_start(model, dim.state_dict())
    warm_start(model, latte.state_dict())
    assert same(block(model, 2, "mixer."), block(dim, 0, "mixer."))
    assert same(block(model, 0), block(latte, 0))
    assert same(block(model, 1), block(latte, 1))


def test_a_spatial_start_treats_every_frame_like_the_image_model() -> None:
    image = trained(DiM(depth=2, **IMAGE, **MAMBA)).double()
    model = DiMVideo(depth=4, **CLIP, **MAMBA).double()
    warm_start(model, image.state_dict())
    model.temp_embed.zero_()
    x = torch.randn(2, 4, 3, 6, 6, generator=torch.Generator().manual_seed(0)).double()
    timesteps, labels = torch.tensor([3, 700]), torch.tensor([1, 5])
    frames = [image(frame, timesteps, labels) for frame in x.unbind(1)]
    torch.testing.assert_close(model(x, timesteps, labels), torch.stack(frames, dim=1))


def test_modulations_as_printed_stay_their_own() -> None:
    model = Matten(depth=2, **CLIP, **HEADS, **MAMBA, residual="as_printed")
    source = trained(DiM(depth=1, **IMAGE, **MAMBA))
    fates = {fate.target: fate.why for fate in warm_start(model, source.state_dict())}
    assert same(block(model, 2, "mixer."), block(source, 0, "mixer."))
    assert fates["blocks.2.adaLN_modulation.1.bias"] == "fresh: (144,) there, (72,) here"
    assert torch.equal(model.blocks[2].adaLN_modulation[1].bias[24:], torch.ones(48))
    again = warm_start(
        Matten(**model.arguments), trained(Matten(depth=2, **CLIP, **HEADS, **MAMBA)).state_dict()
    )
    whys = {fate.target: fate.why for fate in again}
    assert whys["blocks.2.adaLN_modulation.1.bias"] == "fresh: the source's modulation has another meaning"


def test_other_classes_leave_the_label_table_fresh() -> None:
    model, source = Latte(depth=2, **{**CLIP, "num_classes": 9}, **HEADS), DiT(depth=2, **IMAGE, **HEADS)
    fates = {fate.target: fate.why for fate in warm_start(model, source.state_dict())}
    assert fates["y_embedder.embedding_table.weight"] == "fresh: (6, 24) there, (10, 24) here"


@pytest.mark.parametrize(
    "source",
    [
        lambda: DiT(depth=2, **IMAGE, **HEADS),
        lambda: DiM(depth=2, **{**IMAGE, "hidden_size": 16}, **MAMBA),
        lambda: nn.Linear(2, 3),
    ],
)
def test_unlike_weights_are_refused_and_change_nothing(source: Any) -> None:
    model = DiMVideo(depth=2, **CLIP, **MAMBA)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match="no block of the DiMVideo can start from these weights"):
        warm_start(model, source().state_dict())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
