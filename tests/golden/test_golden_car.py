"""VAR and CAR against the official implementations: every recorded tensor of every set is a test."""

from __future__ import annotations

import json
import re
import zlib
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from golden.car_sampling import (
    control_features,
    control_inputs,
    sampled,
    sampled_tolerance_name,
    sampled_value,
)
from golden.car_sets import (
    ENCODERS,
    FOLDER,
    MANIFEST,
    MASKED,
    SETS,
    assert_near,
    car,
    config,
    new_car,
    quantity,
    recorded,
    recorded_keys,
    strided,
    teacher_input,
    token_ids,
    tolerance,
    transformer_arguments,
    var,
)
from safetensors.torch import load_file
from torch import Tensor, nn

from genzoo.autoregression.filters import keep_top_k, keep_top_p
from genzoo.autoregression.loss import next_scale_loss, token_losses
from genzoo.autoregression.sampling import NextScaleOptions, sample_scales
from genzoo.autoregression.scales import split_scales
from genzoo.core.model_state import trainable_parameters
from genzoo.families.car.control.decoder import decoder_of
from genzoo.families.car.control.injection import ControlEncoder
from genzoo.families.car.control.model import CAR
from genzoo.families.car.control.pyramid import as_signed, control_pyramid
from genzoo.families.car.var.model import VAR
from genzoo.families.car.vqvae.model import VQVAE
from genzoo.training.optim import decay_groups

INPUTS = {"labels", "filter.in", "control_image_u8"}
TRAINED = "after2steps."
CASES = [
    (name, part, key) for name in SETS for part in ("var", "car") for key in recorded_keys(name, part)
    if key not in INPUTS
]  # fmt: skip
# where the manifest's sequences come from: the output of which module
LAYERS = {
    r"hidden_after_block(\d+)": "blocks.{}",
    r"hidden_after_last_block": "blocks.-1",
    r"car_block(\d+)_out": "car_blocks.{}",
    r"skip_linear(\d+)_out": "car_skip_linear.{}",
}
FILTER = re.compile(r"filter\.out_k(\d+)_p([0-9.]+)")


def labels(set_name: str) -> Tensor:
    return recorded(set_name, "var")["labels"]


def all_ids(set_name: str) -> Tensor:
    return torch.cat(token_ids(set_name), dim=1)


def module_at(model: VAR | CAR, path: str) -> nn.Module:
    parent, _, last = path.rpartition(".")
    blocks = model.get_submodule(parent)
    return blocks[int(last)] if last.lstrip("-").isdigit() else model.get_submodule(path)


@cache
def teacher_forced(set_name: str, part: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and the outputs of all layers that the manifest may name."""
    model = var(set_name) if part == "var" else car(set_name)
    paths = {"var": ["blocks"], "car": ["car_blocks", "car_skip_linear"]}[part]
    outputs: dict[str, Tensor] = {}
    hooks = []
    for path in paths:
        layers = model.get_submodule(path)
        for index, layer in enumerate(layers):

            def remember(_: nn.Module, __: Any, output: Tensor, name: str = f"{path}.{index}") -> None:
                outputs[name] = output

            hooks.append(layer.register_forward_hook(remember))
        hooks.append(
            layers[-1].register_forward_hook(
                lambda _, __, output, name=f"{path}.-1": outputs.__setitem__(name, output)
            )
        )
    control = () if part == "var" else (control_inputs(set_name),)
    with torch.no_grad():
        logits = model(labels(set_name), teacher_input(set_name), *control)
    for hook in hooks:
        hook.remove()
    return logits, outputs


def layer_output(set_name: str, part: str, name: str) -> Tensor | None:
    for pattern, path in LAYERS.items():
        if match := re.fullmatch(pattern, name):
            return teacher_forced(set_name, part)[1][path.format(*match.groups())]
    return None


def filtered(set_name: str, top_k: int, top_p: float) -> Tensor:
    logits = keep_top_p(keep_top_k(recorded(set_name, "var")["filter.in"], top_k), top_p)
    return logits.masked_fill(logits == -torch.inf, MASKED)


@cache
def fused_maps(set_name: str) -> list[Tensor]:
    """What the convolution on the base's tokens gives at each scale."""
    model, base = car(set_name), car(set_name).base
    contents = base.contents(base.condition(labels(set_name)), teacher_input(set_name))
    parts = zip(split_scales(contents, model.patch_nums), base.sizes, strict=True)
    return [model.car_var_conv(p.transpose(1, 2).unflatten(2, size)).detach() for p, size in parts]


@cache
def two_steps(set_name: str) -> tuple[CAR, list[dict[str, Any]], Tensor]:
    """CAR after the recorded two AdamW steps, what was seen in each, and the logits after."""
    model = new_car(set_name).train()
    before = {name: parameter.clone() for name, parameter in model.base.named_parameters()}
    trained = trainable_parameters(model)
    groups = decay_groups(trained, 1.0)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
    shares = [group["weight_decay"] for group in groups]
    inputs = (labels(set_name), teacher_input(set_name), control_inputs(set_name))
    seen = []
    for step in MANIFEST[set_name]["car"]["info"]["train_steps"]:
        optimizer.zero_grad()
        loss = next_scale_loss(model(*inputs), all_ids(set_name), model.patch_nums)["loss"]
        loss.backward()
        norms = {name: p.grad.norm().item() for name, p in trained.items()}
        total = nn.utils.clip_grad_norm_(trained.values(), 2.0).item()
        for group, share in zip(optimizer.param_groups, shares, strict=True):
            group["lr"], group["weight_decay"] = step["lr"], step["wd"] * share
        optimizer.step()
        seen.append({"loss": loss.item(), "grad_norm_total": total, "grad_norms": norms})
    assert all(torch.equal(before[name], parameter) for name, parameter in model.base.named_parameters())
    assert all(parameter.grad is None for parameter in model.base.parameters())
    with torch.no_grad():
        return model, seen, model(*inputs)


def compute(set_name: str, part: str, key: str) -> Tensor:
    """What our code says for a recorded key."""
    name = quantity(key)
    if match := FILTER.fullmatch(key):
        return filtered(set_name, int(match[1]), float(match[2]))
    value = sampled_value(set_name, part, key)
    if value is None:
        value = layer_output(set_name, part, name)
    if value is not None:
        return value
    if name == "logits":
        return teacher_forced(set_name, part)[0]
    if name == "logits_null_class":
        null = torch.full_like(labels(set_name), config(set_name)["num_classes"])
        return var(set_name)(null, teacher_input(set_name))
    if name == "ce_per_token":
        return token_losses(teacher_forced(set_name, part)[0], all_ids(set_name))
    kind, _, scale = name.rpartition(".")
    assert kind in ("control_feat", "var_conv_out", "control_u8"), f"no computation for {key}"
    if kind == "control_u8":
        tensors, shapes = recorded(set_name, "car"), car(set_name).control_shapes()
        picture = tensors["control_image_u8"].movedim(-1, 1)
        resized = control_pyramid(picture, [(height, width) for _, height, width in shapes])[int(scale)]
        return ((resized + 1) * 127.5).round().byte().movedim(1, -1)
    return (control_features if kind == "control_feat" else fused_maps)(set_name)[int(scale)]


def limits(key: str) -> tuple[float, float]:
    if key.startswith(("greedy", "seeded", "smooth")):
        atol, rtol = tolerance(sampled_tolerance_name(key))
        # the manifest gives smooth pictures a tolerance of their own
        return (2e-3 if key.startswith("smooth") else atol), rtol
    return tolerance("logits")


@pytest.mark.parametrize(
    ("set_name", "part", "key"), [case for case in CASES if not case[2].startswith(TRAINED)]
)
def test_transformers_equal_the_official_ones(set_name: str, part: str, key: str) -> None:
    with torch.no_grad():
        value = compute(set_name, part, key)
    atol, rtol = limits(key)
    if not key.startswith(("greedy", "seeded", "smooth")):
        value = strided(value, key)
    assert_near(value, recorded(set_name, part)[key], f"{part}: {key}", atol=atol, rtol=rtol)


@pytest.mark.parametrize(("set_name", "part", "key"), [case for case in CASES if case[2].startswith(TRAINED)])
def test_two_steps_of_training_equal_the_official_ones(set_name: str, part: str, key: str) -> None:
    model, _, logits = two_steps(set_name)
    name, expected = quantity(key.removeprefix(TRAINED)), recorded(set_name, part)[key]
    if name == "logits":
        atol, rtol = tolerance("after2steps.logits")
        assert_near(strided(logits, key), expected, key, atol=atol, rtol=rtol)
        return
    gap = (model.get_parameter(name) - expected).abs()
    # the manifest allows a few outliers: Adam's step has the sign of gradients that are almost zero
    assert (gap > tolerance("after2steps params")[0]).float().mean().item() <= 0.005
    assert gap.max().item() <= 6e-4


@pytest.mark.parametrize("set_name", SETS)
def test_losses_and_gradients_of_training_equal_the_official_ones(set_name: str) -> None:
    _, seen, _ = two_steps(set_name)
    relative, of_norms = tolerance("losses")[1], tolerance("grad norms")[1]
    for ours, official in zip(seen, MANIFEST[set_name]["car"]["info"]["train_steps"], strict=True):
        assert ours["loss"] == pytest.approx(official["loss"], rel=relative)
        assert ours["grad_norm_total"] == pytest.approx(official["grad_norm_total"], rel=of_norms)
        for name, norm in official["grad_norms"].items():
            assert ours["grad_norms"][name] == pytest.approx(norm, rel=of_norms), name


@pytest.mark.parametrize("set_name", SETS)
def test_parameters_that_do_not_decay_are_the_official_ones(set_name: str) -> None:
    info, model = MANIFEST[set_name]["car"]["info"], new_car(set_name)
    trained = trainable_parameters(model)
    exempt = trained.undecayed
    assert sorted(exempt) == sorted(info["no_decay_keys"])
    groups = {1.0: set(trained) - set(exempt), 0.0: set(exempt)}
    for group in info["param_groups"]:
        names = groups[group["wd_sc"]]
        assert (len(names), sum(trained[name].numel() for name in names)) == (group["n"], group["numel"])


@pytest.mark.parametrize("part", ["var", "car"])
@pytest.mark.parametrize("set_name", SETS)
def test_cross_entropies_equal_the_official_ones(set_name: str, part: str) -> None:
    info, logits = MANIFEST[set_name][part]["info"], teacher_forced(set_name, part)[0]
    patch_nums, relative = config(set_name)["patch_nums"], tolerance("losses")[1]
    plain = next_scale_loss(logits, all_ids(set_name), patch_nums)
    smoothed = next_scale_loss(logits, all_ids(set_name), patch_nums, label_smoothing=0.1)
    assert plain["loss"].item() == pytest.approx(info["ce_ls0"], rel=relative)
    assert plain["cross_entropy_last"].item() == pytest.approx(info["ce_tail"], rel=relative)
    assert smoothed["loss"].item() == pytest.approx(info["ce_ls0p1"], rel=relative)
    if "acc" in info:
        assert plain["accuracy"].item() == pytest.approx(info["acc"], rel=relative)


@pytest.mark.parametrize("set_name", SETS)
def test_without_control_car_samples_what_var_samples(set_name: str) -> None:
    plain, _ = sampled(set_name, "var", "greedy")
    null = torch.full_like(labels(set_name), config(set_name)["num_classes"])
    decoder = decoder_of(car(set_name), torch.cat([labels(set_name), null]))
    options = NextScaleOptions(guidance_scale=1 + config(set_name)["cfg"], top_k=1)
    from golden.car_sets import vqvae

    again = sample_scales(
        decoder, vqvae(set_name).quantize, config(set_name)["patch_nums"], torch.Generator(), options
    )
    assert all(torch.equal(a, b) for a, b in zip(plain.ids, again.ids, strict=True))
    controlled, _ = sampled(set_name, "car", "greedy")
    differs = (torch.cat(plain.ids, 1) != torch.cat(controlled.ids, 1)).float().mean().item()
    assert differs == pytest.approx(MANIFEST[set_name]["car"]["info"]["ids_differ_from_VAR_fraction"])


@pytest.mark.parametrize("name", ENCODERS)
def test_control_encoder_equals_the_official_one(name: str) -> None:
    entry = MANIFEST[name]
    encoder = ControlEncoder(entry["out_channels"], entry["channels"])
    for key, parameter in encoder.state_dict().items():
        draws = np.random.RandomState(zlib.crc32(key.encode())).random_sample(parameter.numel())
        signed = torch.from_numpy(draws.astype(np.float32) * 2 - 1).view(parameter.shape)
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
        scale = np.float32(1.7 * np.sqrt(3 / fan_in)) if parameter.ndim > 1 else np.float32(0.1)
        parameter.copy_(signed * float(scale))
    tensors = load_file(FOLDER / entry["files"]["io"])
    with torch.no_grad():
        output = encoder(tensors["x"])
    atol = float(re.search(r"atol ([0-9.e-]+)", entry["tolerance"])[1])
    assert_near(output, tensors["y"], name, atol=atol)


KEY_LISTS = sorted(path.name for path in FOLDER.glob("keys_*.json"))


@pytest.mark.parametrize("file", KEY_LISTS)
def test_keys_of_every_size_are_the_official_ones(file: str) -> None:
    listed = json.loads((FOLDER / file).read_text())
    with torch.device("meta"):
        state, parameters = full_size(listed)
    state = {key: value for key, value in state.items() if not key.startswith("base.")}
    ours = {
        key: {
            "shape": list(value.shape),
            "dtype": str(value.dtype).removeprefix("torch."),
            "kind": "parameter" if key in parameters else "buffer",
        }
        for key, value in state.items()
    }
    assert ours == listed["keys"]
    assert (
        sum(value.numel() for key, value in state.items() if key in parameters) == listed["n_params_listed"]
    )


def full_size(listed: dict[str, Any]) -> tuple[dict[str, Tensor], set[str]]:
    options = dict(listed["config"])
    if "vocab_size" in options:
        options["codebook_size"], options["patch_nums"] = (
            options.pop("vocab_size"),
            options.pop("v_patch_nums"),
        )
        model: nn.Module = VQVAE(**options)
    else:
        options.pop("note", None)
        options["hidden_size"] = options.pop("embed_dim")
        options["shared_adaln"] = options.pop("shared_aln", False)
        adapter = all("car" in key for key in listed["keys"])
        model = (CAR if adapter else VAR)(**options)
    return model.state_dict(), {name for name, _ in model.named_parameters()}


def test_every_part_of_every_set_has_recorded_tensors() -> None:
    assert SETS
    assert ENCODERS
    assert KEY_LISTS
    assert {part for _, part, _ in CASES} == {"var", "car"}
    assert all(transformer_arguments(name)["depth"] % 2 == 0 for name in SETS)
    assert as_signed(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]
