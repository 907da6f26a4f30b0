"""The sets of the `car` golden folder: configurations, weights, recorded tensors, and our models of them."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import torch
from golden.manifest import golden_root, read_golden
from torch import Tensor

from genzoo.families.car.control.model import CAR
from genzoo.families.car.var.model import VAR
from genzoo.families.car.vqvae.model import VQVAE

FOLDER: Path = golden_root() / "car"
MANIFEST: dict[str, Any] = json.loads((FOLDER / "manifest.json").read_text())
ENTRIES = {name: entry for name, entry in MANIFEST.items() if not name.startswith("_")}
ENCODERS = [name for name, entry in ENTRIES.items() if "weights_recipe" in entry]
SETS = [name for name in ENTRIES if name not in ENCODERS]
PARTS = ("vqvae", "var", "car")
MASKED = -1e9  # stands for -inf in the recorded logits


def recorded_keys(set_name: str, part: str) -> list[str]:
    """The tensors recorded for a part of a set; never empty."""
    keys = sorted(recorded(set_name, part))
    assert keys, f"{set_name}/{part}: nothing is recorded"
    return keys


@cache
def recorded(set_name: str, part: str) -> dict[str, Tensor]:
    return read_golden(FOLDER / MANIFEST[set_name][part]["files"]["io"])


def stored_weights(file: str) -> dict[str, Tensor]:
    """Weights as float32; they were representable in the smaller types they are stored in."""
    tensors = read_golden(FOLDER / file)
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}


def config(set_name: str) -> dict[str, Any]:
    return dict(MANIFEST[set_name]["config"])


@cache
def vqvae(set_name: str) -> VQVAE:
    """The VQVAE of a set in evaluation mode."""
    options = config(set_name)
    arguments = dict(options["vae_kw"])
    arguments["codebook_size"] = arguments.pop("vocab_size")
    model = VQVAE(**arguments, patch_nums=options["patch_nums"])
    model.load_state_dict(stored_weights(MANIFEST[set_name]["vqvae"]["files"]["state_dict"]), strict=True)
    return model.eval()


def transformer_arguments(set_name: str) -> dict[str, Any]:
    options, codes = config(set_name), config(set_name)["vae_kw"]
    return {
        "depth": options["depth"],
        "hidden_size": options["embed_dim"],
        "num_heads": options["num_heads"],
        "patch_nums": options["patch_nums"],
        "num_classes": options["num_classes"],
        "in_channels": codes["z_channels"],
        "codebook_size": codes["vocab_size"],
        "attn_l2_norm": options["attn_l2_norm"],
        "shared_adaln": options["shared_aln"],
    }


@cache
def var(set_name: str) -> VAR:
    """The VAR of a set in evaluation mode; only keys that the manifest says were left out may be missing."""
    entry = MANIFEST[set_name]["var"]
    model = VAR(**transformer_arguments(set_name))
    result = model.load_state_dict(stored_weights(entry["files"]["state_dict"]), strict=False)
    assert sorted(result.missing_keys) == sorted(entry["omitted_keys"])
    assert not result.unexpected_keys
    return model.eval()


def new_car(set_name: str) -> CAR:
    """The CAR of a set on its base, in evaluation mode."""
    entry, options = MANIFEST[set_name]["car"], config(set_name)
    model = CAR(**transformer_arguments(set_name), control_channels=options["ctrl_ch"], init_from_base=False)
    base = stored_weights(entry["files"]["base_var_state_dict"])
    branch = stored_weights(entry["files"]["car_state_dict"])
    result = model.load_state_dict(
        {f"base.{key}": value for key, value in base.items()} | branch, strict=False
    )
    omitted = MANIFEST[set_name]["var"]["omitted_keys"]
    assert sorted(result.missing_keys) == sorted(f"base.{key}" for key in omitted)
    assert not result.unexpected_keys
    assert len(branch) == entry["info"]["n_car_keys"]
    return model.eval()


@cache
def car(set_name: str) -> CAR:
    return new_car(set_name)


def as_pixels(recorded_bytes: Tensor) -> Tensor:
    """Recorded (b, h, w, 3) bytes as the model's input."""
    return recorded_bytes.movedim(-1, 1).float() / 255 * 2 - 1


def token_ids(set_name: str) -> list[Tensor]:
    """The recorded tokens of the set's pictures, by scale."""
    tensors = recorded(set_name, "vqvae")
    return [tensors[f"idx.{scale}"] for scale in range(len(config(set_name)["patch_nums"]))]


def teacher_input(set_name: str) -> Tensor:
    return recorded(set_name, "vqvae")["var_input"]


def strided(values: Tensor, key: str) -> Tensor:
    """Every n-th pixel of pictures, or position of sequences, where the key says so."""
    match = re.search(r"_stride(\d+)$", key)
    if match is None:
        return values
    step = int(match[1])
    return values[..., ::step, ::step] if values.ndim == 4 else values[:, ::step]


def quantity(key: str) -> str:
    """A key without its stride."""
    return re.sub(r"_stride\d+$", "", key)


def tolerance(name: str) -> tuple[float, float]:
    """Absolute and relative tolerance from the manifest's line that lists the name."""
    for names, text in MANIFEST["_readme"]["tolerances"].items():
        if name in [part.strip() for part in names.split(",")]:
            found = {kind: float(value) for kind, value in re.findall(r"(atol|rtol) ([0-9.e-]+)", text)}
            return found.get("atol", 0.0), found.get("rtol", 0.0)
    raise KeyError(f"the manifest gives no tolerance for {name}")


def assert_near(actual: Tensor, expected: Tensor, what: str, *, atol: float, rtol: float = 0.0) -> None:
    assert actual.shape == expected.shape, f"{what}: {tuple(actual.shape)} instead of {tuple(expected.shape)}"
    if not expected.is_floating_point():
        assert torch.equal(actual, expected), f"{what}: {(actual != expected).sum().item()} differ"
        return
    actual = actual.detach().float()
    excess = (actual - expected).abs() - rtol * expected.abs()
    assert excess.max().item() <= atol, f"{what}: off by {excess.max().item():.3g}, allowed {atol:.3g}"
