"""DiM and DiT: zero start, shapes, conditioning, options, errors, keys, closed-form parameter counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genzoo.core.errors import ShapeError, UsageError
from genzoo.core.model_state import trainable_parameters
from genzoo.diffusion.latents import model_latent_shape
from genzoo.families.dim.dit import DiT
from genzoo.families.dim.model import DiM
from genzoo.nn.embeddings import sincos_2d

SMALL: dict[str, Any] = {
    "depth": 2, "hidden_size": 24, "patch_size": 2, "input_size": 6, "in_channels": 3, "num_classes": 5,
}  # fmt: skip
MODELS = {
    "dim": lambda **options: DiM(**{**SMALL, "d_state": 4, **options}),
    "dit": lambda **options: DiT(**{**SMALL, "num_heads": 3, **options}),
}
both = pytest.mark.parametrize("name", MODELS)


def inputs(batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(batch, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return x, torch.arange(batch) * 400, torch.arange(batch) % 6


@torch.no_grad()
def opened(model: nn.Module) -> nn.Module:
    """The model with its zero-initialised layers opened, so that everything matters."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "adaLN_modulation" in name or "final_layer" in name:
            parameter.normal_(std=0.2)
    return model


@both
@pytest.mark.parametrize(("learn_sigma", "channels"), [(True, 6), (False, 3)])
def test_a_fresh_model_returns_exactly_zero(name: str, learn_sigma: bool, channels: int) -> None:
    output = MODELS[name](learn_sigma=learn_sigma)(*inputs())
    assert output.shape == (2, channels, 6, 6)
    assert not output.any()


@both
def test_every_trainable_parameter_receives_a_gradient(name: str) -> None:
    options = {"cls_token": True} if name == "dim" else {}
    model = opened(MODELS[name](**options))
    model(*inputs()).square().sum().backward()
    silent = [
        key for key, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert silent == []
    assert model.pos_embed.grad is None


@both
def test_timestep_and_label_change_the_output(name: str) -> None:
    model = opened(MODELS[name]())
    x, timesteps, labels = inputs()
    base = model(x, timesteps, labels)
    assert not torch.allclose(model(x, timesteps + 3, labels), base)
    assert not torch.allclose(model(x, timesteps, labels + 1), base)


@both
def test_samples_of_a_batch_do_not_meet(name: str) -> None:
    model = opened(MODELS[name]()).double()
    x, timesteps, labels = inputs(3)
    x = x.double()
    alone = torch.cat([model(x[i : i + 1], timesteps[i : i + 1], labels[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(model(x, timesteps, labels), alone)


@both
def test_an_unconditional_model_has_no_label_table(name: str) -> None:
    model = MODELS[name](num_classes=0)
    x, timesteps, labels = inputs()
    assert model(x, timesteps).shape == (2, 6, 6, 6)
    assert not any("y_embedder" in key for key in model.state_dict())
    with pytest.raises(UsageError, match="num_classes=0 but class_labels were given"):
        model(x, timesteps, labels)


@both
def test_the_null_class_can_be_left_out(name: str) -> None:
    model = MODELS[name](null_class=False)
    assert model.y_embedder.embedding_table.weight.shape == (5, 24)
    x, timesteps, _ = inputs()
    with pytest.raises(ShapeError, match="knows 0 to 4"):
        model(x, timesteps, torch.tensor([0, 5]))


@both
def test_the_fixed_positions_are_in_the_state_but_not_trained(name: str) -> None:
    model = MODELS[name]()
    assert "pos_embed" in model.state_dict()
    assert [key for key, p in model.named_parameters() if not p.requires_grad] == ["pos_embed"]


@both
def test_gradient_checkpointing_changes_no_gradient(name: str) -> None:
    gradients = []
    for flag in (False, True):
        torch.manual_seed(0)
        model = opened(MODELS[name](gradient_checkpointing=flag))
        model(*inputs()).square().mean().backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


@both
def test_bfloat16_autocast_stays_near_float32(name: str) -> None:
    model = opened(MODELS[name]())
    expected = model(*inputs())
    with torch.autocast("cpu", torch.bfloat16):
        output = model(*inputs())
    # bfloat16 keeps 8 bits; errors add up over two blocks
    assert (output.float() - expected).abs().max() <= 0.05 * expected.abs().max()


@both
def test_the_arguments_rebuild_the_model(name: str) -> None:
    model = MODELS[name](mlp_ratio=2.0)
    twin = type(model)(**model.arguments)
    twin.load_state_dict(model.state_dict())
    assert twin.arguments == model.arguments


@both
def test_pictures_need_not_be_square(name: str) -> None:
    model = opened(MODELS[name](input_size=[4, 6], depth=1))
    torch.nn.init.zeros_(model.blocks[0].adaLN_modulation[1].weight)
    torch.nn.init.zeros_(model.blocks[0].adaLN_modulation[1].bias)
    _, timesteps, labels = inputs()
    x = torch.zeros(2, 3, 4, 6)
    changed = x.clone()
    changed[:, :, :2, 4:] = 1
    difference = model(changed, timesteps, labels) - model(x, timesteps, labels)
    assert difference.shape == (2, 6, 4, 6)
    assert torch.equal(model.pos_embed[0], sincos_2d(24, 2, 3).float())
    # with closed blocks a patch sees itself alone: it must come back where it was
    assert difference[:, :, :2, 4:].abs().min() > 0
    assert difference[:, :, 2:].abs().max() == difference[:, :, :, :4].abs().max() == 0
    assert model_latent_shape(model) == (3, 4, 6)
    assert [t.shape for t in model.example_inputs()] == [(1, 3, 4, 6), (1,), (1,)]


@both
def test_images_take_no_stills(name: str) -> None:
    with pytest.raises(UsageError, match="takes images, but use_image_num=2"):
        MODELS[name]()(*inputs(), use_image_num=2)


@both
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, t, y: (x[:, :2], t, y), r"takes \(b, 3, 6, 6\) but x is \(2, 2, 6, 6\)"),
        (lambda x, t, y: (x[..., :4], t, y), r"but x is \(2, 3, 6, 4\)"),
        (lambda x, t, y: (x, t[:1], y), r"timesteps has shape \(1,\)"),
        (lambda x, t, y: (x, t, y[:1]), r"class_labels has shape \(1,\)"),
        (lambda x, t, y: (x, t, None), "no class_labels were given"),
    ],
)
def test_wrong_inputs_are_named(name: str, change: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MODELS[name]()(*change(*inputs()))


@both
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 4}, "input_size 6 is no multiple of patch_size 4"),
        ({"depth": 0}, "depth=0 must be at least 1"),
        ({"input_size": [6, 5]}, r"input_size \[6, 5\] is no multiple of patch_size 2"),
        (
            {"input_size": [6, 0]},
            r"input_size must be one number, or .* 1 or more, not \[6, 0\]",
        ),
        (
            {"input_size": [6]},
            r"input_size must be one number, or .*, not \[6\]; write 6",
        ),
    ],
)
def test_wrong_sizes_are_named(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        MODELS[name](**options)


@pytest.mark.parametrize("mixer", ["v2", "v1", "none"])
def test_every_mixer_runs_and_only_two_directions_see_the_end(mixer: str) -> None:
    model = opened(MODELS["dim"](mixer=mixer))
    x, timesteps, labels = inputs(1)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(model(x, timesteps, labels)[0, 0, :2, :2].sum(), x)
    assert gradient[..., :2, :2].any()
    assert bool(gradient[..., 4:, 4:].any()) == (mixer != "none")


def test_the_class_token_is_read_but_gives_no_output() -> None:
    plain, with_token = opened(MODELS["dim"]()), opened(MODELS["dim"](cls_token=True))
    extra = with_token.load_state_dict(plain.state_dict(), strict=False)
    assert extra.missing_keys == ["cls_token"]
    first = with_token(*inputs())
    assert first.shape == plain(*inputs()).shape
    assert not torch.allclose(first, plain(*inputs()))


def test_scan_parameters_are_marked_against_weight_decay() -> None:
    marked = trainable_parameters(MODELS["dim"](depth=1)).undecayed
    assert set(marked) == {f"blocks.0.mixer.{key}" for key in ("A_log", "A_b_log", "D", "D_b")}


def shell_params(d: int, p: int, c: int, classes: int, tokens: int) -> int:
    patches = (c * p * p * d + d) + tokens * d
    condition = (256 * d + d) + (d * d + d) + (classes + 1) * d
    final = (2 * d * d + 2 * d) + (d * 2 * c * p * p + 2 * c * p * p)
    return patches + condition + final


@pytest.mark.parametrize(("depth", "width", "patch"), [(2, 32, 2), (3, 48, 4)])
def test_parameter_counts_are_the_closed_forms(depth: int, width: int, patch: int) -> None:
    sizes = {"depth": depth, "hidden_size": width, "patch_size": patch, "input_size": 16, "num_classes": 7}
    shell = shell_params(width, patch, 4, 7, (16 // patch) ** 2)
    rank = -(-width // 16)
    mixer = 6 * width**2 + 4 * width * (2 * rank + 55)
    with torch.device("meta"):
        dit = sum(p.numel() for p in DiT(**sizes, num_heads=4).parameters())
        dim = {e: sum(p.numel() for p in DiM(**sizes, expand=e).parameters()) for e in (1, 2)}
    assert dit == shell + depth * (18 * width**2 + 15 * width)
    assert dim[2] == shell + depth * (14 * width**2 + 11 * width + mixer)
    assert dim[1] == shell + depth * (14 * width**2 + 11 * width + mixer // 2)
