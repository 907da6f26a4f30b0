"""Released DiT layouts: read, inferred, checked, reported, and written back unchanged."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import genzoo.families  # noqa: F401  # reads the cards
from genzoo.core.errors import CheckpointError, WeightsError
from genzoo.core.registry import CONVERTERS, MODELS
from genzoo.families.dim.dit import DiT
from genzoo.families.dim.model import DiM
from genzoo.pretrained.loading import load_foreign

CONVERTER = CONVERTERS.get("dit")()
SIZES: dict[str, Any] = {
    "depth": 2, "hidden_size": 48, "num_heads": 3, "patch_size": 2, "input_size": 6, "in_channels": 3,
    "num_classes": 5, "mlp_ratio": 2.0, "learn_sigma": True, "null_class": True,
}  # fmt: skip


def random_dit(seed: int = 0, **options: Any) -> DiT:
    generator = torch.Generator().manual_seed(seed)
    model = DiT(**{**SIZES, **options})
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def training_file(path: Path, ema: DiT, raw: DiT) -> Path:
    """What DiT's training script saves."""
    optimizer = torch.optim.AdamW(raw.parameters())
    args = argparse.Namespace(model="DiT-XL/2", image_size=256, num_classes=5, results_dir="results")
    raw_weights = {f"module.{key}": value for key, value in raw.state_dict().items()}
    tree = {"model": raw_weights, "ema": ema.state_dict(), "opt": optimizer.state_dict(), "args": args}
    torch.save(tree, path)
    return path


def weights() -> dict[str, Tensor]:
    return dict(random_dit().state_dict())


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_bare_state_dict_goes_there_and_back(tmp_path: Path, suffix: str) -> None:
    model, path = random_dit(), tmp_path / f"weights{suffix}"
    (torch.save if suffix == ".pt" else save_file)(model.state_dict(), path)
    conversion = CONVERTER.to_genzoo(load_foreign(path), num_heads=3)
    assert {key: SIZES[key] for key in conversion.arguments} == conversion.arguments

    ours = MODELS.get(conversion.model)(**conversion.arguments)
    ours.load_state_dict(conversion.weights, strict=True)
    inputs = (torch.randn(2, 3, 6, 6), torch.tensor([0, 999]), torch.tensor([1, 5]))
    assert torch.equal(ours(*inputs), model(*inputs))

    back = CONVERTER.from_genzoo(ours.state_dict())
    assert list(back) == list(model.state_dict())
    assert all(torch.equal(back[key], value) for key, value in model.state_dict().items())


def test_a_training_file_gives_its_average_and_reports_every_entry(tmp_path: Path) -> None:
    ema, raw = random_dit(1), random_dit(2)
    tree = load_foreign(training_file(tmp_path / "0400000.pt", ema, raw))
    assert CONVERTER.detect(tree)
    conversion = CONVERTER.to_genzoo(tree, num_heads=3)
    assert conversion.arguments["num_classes"] == 5
    assert all(torch.equal(conversion.weights[key], value) for key, value in ema.state_dict().items())
    report = {entry: (key, why) for entry, key, why in conversion.report}
    assert {entry for entry, (key, _) in report.items() if key} == {f"ema.{key}" for key in ema.state_dict()}
    assert {entry for entry, (key, _) in report.items() if not key} == {"model", "opt", "args"}
    assert report["ema.pos_embed"] == ("pos_embed", "copied, (1, 9, 48) float32")


def test_without_an_average_the_raw_weights_serve_and_prefixes_go() -> None:
    tree = {"model": {f"module.{key}": value for key, value in weights().items()}}
    conversion = CONVERTER.to_genzoo(tree, num_heads=3)
    assert set(conversion.weights) == set(weights())
    assert ("model.module.pos_embed", "pos_embed", "copied, (1, 9, 48) float32") in conversion.report


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ({"num_classes": 0}, {}),
        ({"null_class": False}, {"num_classes": 5}),
        ({"learn_sigma": False, "patch_size": 3}, {}),
        ({"hidden_size": 384, "num_heads": 6, "depth": 1}, {"num_heads": None}),
    ],
)
def test_arguments_are_read_from_the_tensors(options: dict[str, Any], given: dict[str, Any]) -> None:
    model = random_dit(**options)
    given = {"num_heads": 3, **given}
    given = {key: value for key, value in given.items() if value is not None}
    conversion = CONVERTER.to_genzoo(model.state_dict(), **given)
    assert conversion.arguments == {key: model.arguments[key] for key in conversion.arguments}
    DiT(**conversion.arguments).load_state_dict(conversion.weights, strict=True)


def test_half_precision_is_kept() -> None:
    conversion = CONVERTER.to_genzoo({key: value.half() for key, value in weights().items()}, num_heads=3)
    assert {value.dtype for value in conversion.weights.values()} == {torch.float16}


def test_positions_of_another_kind_are_reported() -> None:
    learned = weights() | {"pos_embed": torch.ones(1, 9, 48)}
    report = CONVERTER.to_genzoo(learned, num_heads=3).report
    assert "differs from the fixed table" in next(why for _, key, why in report if key == "pos_embed")


def test_other_models_are_not_taken_for_dit() -> None:
    assert not CONVERTER.detect(weights() | {"temp_embed": torch.zeros(1, 4, 48)})
    assert not CONVERTER.detect(DiM(depth=1, hidden_size=16, patch_size=2, input_size=4).state_dict())
    assert not CONVERTER.detect({"model": {}, "args": {}})
    for convert in (CONVERTER.to_genzoo, CONVERTER.from_genzoo):
        with pytest.raises(WeightsError, match="no DiT weights"):
            convert({"some.weight": torch.zeros(1)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks.1.mlp.fc2.bias": None}, r"1 missing \(blocks.1.mlp.fc2.bias\)"),
        ({"blocks.1.norm1.weight": torch.ones(48)}, r"1 unexpected \(blocks.1.norm1.weight\)"),
        ({"t_embedder.mlp.0.weight": torch.ones(48, 128)}, r"t_embedder.mlp.0.weight \(48, 128\)"),
        ({"final_layer.linear.bias": torch.ones(24).long()}, "final_layer.linear.bias torch.int64"),
        ({"final_layer.linear.weight": torch.ones(36, 48)}, "predicts 3 x the 3 input channels"),
    ],
)
def test_weights_that_do_not_fit_are_named(change: dict[str, Tensor | None], message: str) -> None:
    changed = {key: value for key, value in (weights() | change).items() if value is not None}
    with pytest.raises(WeightsError, match=message):
        CONVERTER.to_genzoo(changed, num_heads=3)
    with pytest.raises(WeightsError, match=message):
        CONVERTER.from_genzoo(changed)


def test_what_the_tensors_hide_must_be_given() -> None:
    with pytest.raises(WeightsError, match="how many heads share a width of 48"):
        CONVERTER.to_genzoo(weights())
    with pytest.raises(WeightsError, match="6 rows"):
        CONVERTER.to_genzoo(weights(), num_heads=3, num_classes=9)


def test_a_truncated_file_is_a_checkpoint_error(tmp_path: Path) -> None:
    path = training_file(tmp_path / "file.pt", random_dit(), random_dit())
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(CheckpointError):
        load_foreign(path)


def test_the_usual_recipe_exists() -> None:
    assert (Path(__file__).parents[3] / "recipes" / f"{CONVERTER.recipe}.yaml").is_file()
