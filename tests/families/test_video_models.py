"""What holds for every model of clips: zero start, conditioning, who sees whom, stills, errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families.video_models import (
    CHANNELS,
    CLASSES,
    EVERY,
    FRAMES,
    JOINT,
    SIZE,
    TOKENS,
    inputs,
    opened,
)

from genzoo.core.errors import ShapeError, UsageError
from genzoo.diffusion.latents import model_latent_shape

every = pytest.mark.parametrize("name", EVERY)
joint = pytest.mark.parametrize("name", JOINT)


@every
@pytest.mark.parametrize(("learn_sigma", "channels"), [(True, 2 * CHANNELS), (False, CHANNELS)])
def test_a_fresh_model_of_clips_returns_exactly_zero(name: str, learn_sigma: bool, channels: int) -> None:
    output = EVERY[name](learn_sigma=learn_sigma)(*inputs())
    assert output.shape == (2, FRAMES, channels, SIZE, SIZE)
    assert not output.any()


@every
def test_every_parameter_of_a_model_of_clips_learns(name: str) -> None:
    model = opened(EVERY[name]())
    model(*inputs()).square().sum().backward()
    silent = [
        key for key, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert silent == []
    frozen = [key for key, p in model.named_parameters() if not p.requires_grad]
    assert sorted(frozen) == sorted(model.fixed_tables)


@every
def test_timestep_label_and_frame_order_change_the_output(name: str) -> None:
    model = opened(EVERY[name]())
    x, timesteps, labels = inputs()
    base = model(x, timesteps, labels)
    assert not torch.allclose(model(x, timesteps + 3, labels), base)
    assert not torch.allclose(model(x, timesteps, (labels + 1) % CLASSES), base)
    assert not torch.allclose(model(x.flip(1), timesteps, labels).flip(1), base)


@every
def test_clips_of_a_batch_do_not_meet(name: str) -> None:
    model = opened(EVERY[name]()).double()
    x, timesteps, labels = inputs(3)
    x = x.double()
    alone = torch.cat([model(x[i : i + 1], timesteps[i : i + 1], labels[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(model(x, timesteps, labels), alone)


@every
def test_every_frame_and_place_sees_every_other(name: str) -> None:
    # at least two spatial and two temporal blocks: information may need one of each to arrive
    model = opened(EVERY[name](depth=4))
    x, timesteps, labels = inputs(1)
    x.requires_grad_()
    for frame, corner in ((0, slice(0, 2)), (FRAMES - 1, slice(4, 6))):
        output = model(x, timesteps, labels)[0, frame, :, corner, corner]
        (gradient,) = torch.autograd.grad(output.sum(), x)
        assert (gradient[0].abs().amax((1, 2, 3)) > 0).all()
        assert gradient[0, FRAMES - 1 - frame].any()


@every
def test_an_unconditional_model_of_clips_has_no_labels(name: str) -> None:
    model = EVERY[name](num_classes=0)
    x, timesteps, labels = inputs()
    assert model(x, timesteps).shape == (2, FRAMES, 2 * CHANNELS, SIZE, SIZE)
    assert not any("embedding_table" in key for key in model.state_dict())
    with pytest.raises(UsageError, match="num_classes=0 but class_labels were given"):
        model(x, timesteps, labels)


@every
def test_recomputing_changes_no_gradient_of_a_clip(name: str) -> None:
    gradients = []
    for flag in (False, True):
        torch.manual_seed(0)
        model = opened(EVERY[name](gradient_checkpointing=flag))
        model(*inputs()).square().mean().backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


@every
def test_the_arguments_rebuild_a_model_of_clips(name: str) -> None:
    model = EVERY[name](mlp_ratio=2.0)
    twin = type(model)(**model.arguments)
    twin.load_state_dict(model.state_dict())
    assert twin.arguments == model.arguments
    assert twin.orders == model.orders


@joint
def test_stills_and_clip_do_not_influence_each_other(name: str) -> None:
    model = opened(JOINT[name]()).double()
    x, timesteps, labels = inputs(2, stills=2)
    x, image_labels = x.double(), torch.tensor([[1, 2], [3, CLASSES]])
    both = model(x, timesteps, labels, image_labels=image_labels, use_image_num=2)

    torch.testing.assert_close(both[:, :FRAMES], model(x[:, :FRAMES], timesteps, labels))
    changed = x.clone()
    changed[:, FRAMES + 1] += 1
    again = model(changed, timesteps, labels, image_labels=image_labels, use_image_num=2)
    assert torch.equal(again[:, : FRAMES + 1], both[:, : FRAMES + 1])
    changed = x.clone()
    changed[:, :FRAMES] += 1
    again = model(changed, timesteps, labels, image_labels=image_labels, use_image_num=2)
    assert torch.equal(again[:, FRAMES:], both[:, FRAMES:])


@joint
def test_a_still_follows_its_own_label_and_has_no_place_in_time(name: str) -> None:
    model = opened(JOINT[name]())
    x, timesteps, labels = inputs(1, stills=2)
    x[:, FRAMES + 1] = x[:, FRAMES]

    def stills(*image_labels: int) -> Any:
        options = {"image_labels": torch.tensor([image_labels]), "use_image_num": 2}
        return model(x, timesteps, labels, **options)[0, FRAMES:]

    first, second = stills(1, 1)
    torch.testing.assert_close(first, second)
    other = stills(1, 2)
    torch.testing.assert_close(other[0], first)
    assert not torch.allclose(other[1], first)


@joint
def test_the_loss_of_stills_trains_the_blocks_that_see_them(name: str) -> None:
    model = opened(JOINT[name]())
    x, timesteps, labels = inputs(1, stills=1)
    options = {"image_labels": torch.tensor([[2]]), "use_image_num": 1}
    model(x, timesteps, labels, **options)[:, FRAMES:].square().sum().backward()
    trained = [
        any(p.grad is not None and bool(p.grad.any()) for p in block.parameters()) for block in model.blocks
    ]
    assert trained == [order != "temporal" for order in model.orders]


@every
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, t, y: (x[:, :3], t, y), r"takes \(b, 4, 3, 6, 6\) but x is \(2, 3, 3, 6, 6\)"),
        (lambda x, t, y: (x[:, :, :2], t, y), r"but x is \(2, 4, 2, 6, 6\)"),
        (lambda x, t, y: (x[:, 0], t, y), r"but x is \(2, 3, 6, 6\)"),
        (lambda x, t, y: (x, t[:1], y), r"timesteps has shape \(1,\)"),
        (lambda x, t, y: (x, t, y[:1]), r"class_labels has shape \(1,\)"),
        (lambda x, t, y: (x, t, None), "no class_labels were given"),
    ],
)
def test_wrong_inputs_of_clips_are_named(name: str, change: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EVERY[name]()(*change(*inputs()))


@joint
@pytest.mark.parametrize(
    ("stills", "options", "message"),
    [
        (2, {}, r"takes \(b, 4, 3, 6, 6\) but"),
        (1, {"use_image_num": 2, "image_labels": torch.zeros(2, 2).long()}, "with use_image_num=2"),
        (2, {"use_image_num": 2}, "no image_labels were given"),
        (
            2,
            {"use_image_num": 2, "image_labels": torch.zeros(2, 1).long()},
            r"image_labels has shape \(2, 1\)",
        ),
        (0, {"image_labels": torch.zeros(2, 1).long()}, "no stills but image_labels were given"),
    ],
)
def test_wrong_stills_are_named(name: str, stills: int, options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        JOINT[name]()(*inputs(2, stills=stills), **options)


@pytest.mark.parametrize("name", TOKENS)
def test_conditional_tokens_take_no_stills(name: str) -> None:
    with pytest.raises(UsageError, match="describe one clip"):
        TOKENS[name]()(*inputs(2, stills=1), image_labels=torch.zeros(2, 1).long(), use_image_num=1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("latte", {"depth": 3}, "depth is 3 but these blocks come in pairs"),
        ("dim_video", {"depth": 3}, "depth is 3 but these blocks come in pairs"),
        ("matten_3", {"depth": 3}, "depth 3 is odd"),
        ("matten_1", {"input_size": 5}, "input_size 5 is no multiple of patch_size 2"),
        ("latte", {"num_frames": 0}, "num_frames=0 must be at least 1"),
        ("latte", {"num_heads": 5}, "24 cannot be shared by num_heads 5"),
    ],
)
def test_wrong_sizes_of_clips_are_named(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        EVERY[name](**options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("matten_3", {"variant": 5}, "no variant 5"),
        ("matten_3", {"residual": "printed"}, "no residual 'printed'.*as_printed"),
        ("matten_3", {"conditioning": "adain"}, "no conditioning 'adain'.*adaln"),
        ("matten_3", {"scan": "spacial_first"}, "no scan 'spacial_first'.*spatial_first"),
        ("matten_tokens_1", {"residual": "as_printed"}, "a form of M-AdaN"),
        ("dim_video", {"scan": "globl"}, "no scan 'globl'.*global"),
    ],
)
def test_wrong_options_of_clips_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EVERY[name](**options)


@pytest.mark.parametrize("name", EVERY)
def test_frames_need_not_be_square(name: str) -> None:
    model = opened(EVERY[name](input_size=[2, 6]))
    x, timesteps, labels = inputs()
    assert model(x[..., :2, :], timesteps, labels).shape == (2, 4, 6, 2, 6)
    assert model_latent_shape(model) == (4, 3, 2, 6)
    with pytest.raises(ShapeError, match=r"takes \(b, 4, 3, 2, 6\)"):
        model(x, timesteps, labels)


def test_odd_depths_suit_a_global_scan() -> None:
    assert len(JOINT["dim_video_global"](depth=3).blocks) == 3


@joint
def test_a_clip_scanned_backwards_is_the_clip_of_swapped_directions(name: str) -> None:
    """With equal directions, no positions and a pointwise shell, reversing a clip reverses the output."""
    model = opened(JOINT[name](patch_size=1)).double()
    state = model.state_dict()
    for key in list(state):
        if "_b." in key or key.endswith(("A_b_log", "D_b")):
            state[key] = state[key.replace("_b.", ".").replace("A_b_log", "A_log").replace("D_b", "D")]
    state |= {key: torch.zeros_like(state[key]) for key in model.fixed_tables}
    model.load_state_dict(state)
    x, timesteps, labels = inputs()
    x = x.double()
    backwards = model(x.flip(1, 3, 4), timesteps, labels)
    torch.testing.assert_close(backwards.flip(1, 3, 4), model(x, timesteps, labels))
