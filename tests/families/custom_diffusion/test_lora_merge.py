"""LoRA files end to end on a tiny base: merged by least squares, written as one, refused by name."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from families.custom_diffusion.tiny_bases import make_concept
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from genzoo.cli import main
from genzoo.core.errors import GenzooError
from genzoo.families.custom_diffusion.data.captions import default_captions
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights
from genzoo.families.custom_diffusion.files.write_layouts import write_concept
from genzoo.families.custom_diffusion.lora.changes import Change
from genzoo.families.custom_diffusion.lora.merge import merge_loras
from genzoo.families.custom_diffusion.lora.names import base_modules, kohya_name
from genzoo.families.custom_diffusion.lora.read import is_lora, read_lora
from genzoo.families.custom_diffusion.lora.record import MAX_ROWS, changed, record_inputs
from genzoo.families.custom_diffusion.lora.solve import row_factor
from genzoo.families.custom_diffusion.merge.concepts import merge_concepts
from genzoo.pretrained.text_to_image import load_parts

MODULES = (
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "down_blocks.1.attentions.0.transformer_blocks.0.ff.net.2",
    "down_blocks.1.attentions.0.proj_in",
    "text_encoder.encoder.layers.0.self_attn.q_proj",
)


def make_lora(base: Path, path: Path, *, seed: int, rank: int, only: tuple[str, ...] = MODULES) -> Path:
    """A kohya file that changes some modules."""
    shapes, generator = base_modules(base), torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for module in only:
        out, width, *rest = shapes[module]
        layer = kohya_name(module)
        tensors[f"{layer}.lora_down.weight"] = torch.randn(rank, width, *rest, generator=generator)
        tensors[f"{layer}.lora_up.weight"] = 0.1 * torch.randn(out, rank, *rest, generator=generator)
        tensors[f"{layer}.alpha"] = torch.tensor(float(rank))
    save_file(tensors, path)
    return path


@pytest.fixture
def loras(sd: Path, tmp_path: Path) -> list[Path]:
    return [
        make_lora(sd, tmp_path / "cat.safetensors", seed=1, rank=2),
        make_lora(sd, tmp_path / "pot.safetensors", seed=2, rank=3, only=MODULES[:4]),
    ]


def command(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def test_command_merges_loras_into_one_that_reads_as_the_report_says(
    sd: Path, loras: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [path.read_bytes() for path in loras]
    out = tmp_path / "both"
    arguments = ["merge-concepts", f"{loras[0]}:0.8", loras[1], "--base", sd]
    arguments += ["--phrase", "sks cat", "--phrase", "pll pot"]
    assert command(*arguments, "-o", out) == 0
    shown = capsys.readouterr().out
    assert "cat.safetensors x 0.8 (kohya): least squares 0." in shown
    assert [path.read_bytes() for path in loras] == before
    merged = read_lora(out / "lora.safetensors", base_modules(sd))
    assert merged.changes.keys() == set(MODULES)
    assert {merged.changes[name].rank for name in MODULES[:4]} == {5}
    assert {merged.changes[name].rank for name in MODULES[4:]} == {2}
    report = json.loads((out / "report.json").read_text())
    for mine, average in zip(report["residual"]["least_squares"], report["residual"]["average"], strict=True):
        assert mine < average
    with safe_open(out / "lora.safetensors", framework="pt") as file:
        assert file.metadata()["ss_network_dim"] == "Dynamic"
        assert not any(name.endswith(".alpha") for name in file.keys())  # noqa: SIM118
    assert command(*arguments, "-o", tmp_path / "mean.safetensors", "--method", "average") == 0
    mean = read_lora(tmp_path / "mean.safetensors", base_modules(sd))
    wanted = 0.4 * read_lora(loras[0], base_modules(sd)).changes[MODULES[4]].delta
    torch.testing.assert_close(mean.changes[MODULES[4]].delta, wanted, atol=1e-6, rtol=1e-5)


def test_command_writes_a_base_with_the_merge_in_its_weights(
    sd: Path, loras: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, before = tmp_path / "whole", {path: path.read_bytes() for path in sd.rglob("*") if path.is_file()}
    arguments = ["merge-concepts", *loras, "--base", sd, "--phrase", "sks cat", "--phrase", "pll pot"]
    assert command(*arguments, "-o", tmp_path / "one.safetensors") == 0
    assert command(*arguments, "-o", out, "--as-base") == 0
    assert {path: path.read_bytes() for path in before} == before
    changes = read_lora(tmp_path / "one.safetensors", base_modules(sd)).changes
    parts = load_parts(sd)
    with changed(parts, changes, 1.0):
        wanted = {name: value.clone() for name, value in parts.unet.state_dict().items()}
        words = parts.text_encoders[0].state_dict()
        wanted_words = {name: value.clone() for name, value in words.items()}
    whole = load_parts(out)
    for name, value in whole.unet.state_dict().items():
        torch.testing.assert_close(value, wanted[name], atol=1e-6, rtol=1e-6)
    for name, value in whole.text_encoders[0].state_dict().items():
        torch.testing.assert_close(value, wanted_words[name], atol=1e-6, rtol=1e-6)
    moved = f"{MODULES[4]}.weight"
    assert not torch.equal(wanted[moved], parts.unet.state_dict()[moved])
    assert (out / "report.txt").is_file()
    assert command(*arguments, "-o", tmp_path / "two.safetensors", "--as-base") == 2
    assert "a whole base is a folder" in capsys.readouterr().err
    assert command("merge-concepts", loras[0], "--base", sd, "-o", out, "--as-base") == 2
    assert "exists already" in capsys.readouterr().err


def test_one_lora_alone_is_kept_with_its_strength(sd: Path, loras: list[Path]) -> None:
    merged = merge_loras(loras[:1], base=sd, prompts=["sks cat"], strengths=[0.5], keep=0.0, lamb=1e-12)
    own = read_lora(loras[0], base_modules(sd))
    assert merged.report.residual["least_squares"] == pytest.approx([0.0], abs=1e-4)
    parts = load_parts(sd)
    group = {"q": MODULES[2]}
    with changed(parts, own.changes, 0.5):
        rows = record_inputs(parts, group, ["sks cat", "photo of a sks cat"])["q"].double()
    ours = merged.lora.changes[MODULES[2]].delta @ rows.T
    wanted = 0.5 * own.changes[MODULES[2]].delta @ rows.T
    assert (ours - wanted).norm() < 1e-3 * wanted.norm()


def test_recorded_rows_are_limited_the_same_each_time_and_leave_the_base_alone(
    sd: Path, loras: list[Path]
) -> None:
    parts, changes = load_parts(sd), read_lora(loras[0], base_modules(sd)).changes
    before = {name: value.clone() for name, value in parts.unet.state_dict().items()}
    groups = {"text": MODULES[0], "in": MODULES[4]}
    with changed(parts, changes, 1.0):
        first = record_inputs(parts, groups, ["sks cat"])
    with changed(parts, changes, 1.0):
        second = record_inputs(parts, groups, ["sks cat"])
    # 77 places of one prompt at four steps, and 16 places of the picture at four steps
    assert [tuple(first[name].shape) for name in groups] == [(MAX_ROWS, 24), (64, 16)]
    assert all(torch.equal(first[name], second[name]) for name in groups)
    assert all(torch.equal(value, before[name]) for name, value in parts.unet.state_dict().items())


def test_a_dense_change_is_merged_too(sd: Path, loras: list[Path], tmp_path: Path) -> None:
    layer, width = kohya_name(MODULES[0]), 24
    generator = torch.Generator().manual_seed(3)
    factors = {"hada_w1_a": (16, 2), "hada_w1_b": (2, width), "hada_w2_a": (16, 2), "hada_w2_b": (2, width)}
    path = tmp_path / "loha.safetensors"
    save_file({f"{layer}.{k}": 0.3 * torch.randn(s, generator=generator) for k, s in factors.items()}, path)
    merged = merge_loras([loras[1], path], base=sd, prompts=["pll pot", "loha"])
    assert merged.report.residual["least_squares"][1] < merged.report.residual["average"][1]


def test_few_rows_without_a_ridge_are_refused() -> None:
    with pytest.raises(GenzooError, match="needs a ridge"):
        row_factor([torch.ones(2, 5)], [1.0], 0.0)


def test_concepts_have_strengths_too(sd: Path, concepts: list[Path]) -> None:
    half = merge_concepts(concepts[:1], base=sd, captions=default_captions(40), strengths=[0.5])
    whole = merge_concepts(concepts[:1], base=sd, captions=default_captions(40))
    base = BaseWeights(sd)
    for name in base.key_values:
        wanted = base[name] + 0.5 * (whole.delta.weights[name] - base[name])
        torch.testing.assert_close(half.delta.weights[name], wanted, atol=1e-5, rtol=1e-4)


def test_concepts_and_loras_are_not_mixed_unnoticed(
    sd: Path, loras: list[Path], concepts: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("merge-concepts", loras[0], concepts[0], "--base", sd, "-o", tmp_path / "x") == 2
    assert "is a concept" in capsys.readouterr().err
    assert not is_lora(concepts[0])


def test_an_exported_concept_is_a_lora_that_reads_back(sd: Path, tmp_path: Path) -> None:
    concept, base = make_concept(sd, 1, token="<new1>", phrase="<new1> cat"), BaseWeights(sd)
    folder = write_concept(concept, tmp_path / "kohya", layout="kohya", base=base)
    lora = read_lora(folder / "lora.safetensors", base_modules(sd))
    for name in base.key_values:
        change = lora.changes[name.removesuffix(".weight")].delta
        torch.testing.assert_close(change.float(), concept.weights[name] - base[name], atol=1e-5, rtol=0)
    assert lora.trigger == "<new1> cat"


BAD: dict[str, tuple[Any, str]] = {
    "other base": (
        lambda t: {k: v[..., :5] if k.endswith("to_k.lora_down.weight") else v for k, v in t.items()},
        "down of .*to_k is 5 wide, the base 24",
    ),
    "none of its modules": (
        lambda t: {k.replace("down_blocks", "blocks"): v for k, v in t.items() if "unet" in k},
        "none of its modules",
    ),
    "half a pair": (
        lambda t: {k: v for k, v in t.items() if not k.endswith("to_k.lora_up.weight")},
        "half a pair",
    ),
    "alpha 0": (
        lambda t: {k: v * 0 if k.endswith(".alpha") else v for k, v in t.items()},
        "alpha of .* is 0",
    ),
    "rank 0": (
        lambda t: {k: v[:0] if k.endswith("lora_down.weight") else v for k, v in t.items()},
        "the ranks of",
    ),
    "unknown": (lambda t: {**t, "one": torch.ones(1), "two": torch.ones(1)}, "more than a LoRA.*one, two"),
    "glora": (lambda t: {**t, "lora_unet_x.a1.weight": torch.ones(1)}, "GLoRA"),
    "oft": (lambda t: {**t, "lora_unet_x.oft_blocks": torch.ones(1)}, "OFT"),
    "nan": (lambda t: {k: v * float("nan") if "to_k.lora_up" in k else v for k, v in t.items()}, "NaN"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_by_name(name: str, sd: Path, loras: list[Path], tmp_path: Path) -> None:
    spoil, message = BAD[name]
    path = tmp_path / "bad.safetensors"
    save_file({k: v.contiguous() for k, v in spoil(load_file(loras[0])).items()}, path)
    with pytest.raises(GenzooError, match=f"(?s){message}"):
        merge_loras([path], base=sd, prompts=["cat"], output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Hostile:
    def __reduce__(self) -> Any:
        return (print, ("run",))


def test_other_bad_input(sd: Path, loras: list[Path], tmp_path: Path) -> None:
    same = tmp_path / "same.safetensors"
    same.write_bytes(loras[0].read_bytes())
    with pytest.raises(GenzooError, match=r"cat\.safetensors and same\.safetensors are one file"):
        merge_loras([loras[0], same], base=sd, prompts=["a", "b"])
    with pytest.raises(GenzooError, match=r"(?s)does not say which words call it.*--phrase"):
        merge_loras(loras, base=sd)
    with pytest.raises(GenzooError, match="is no strength"):
        merge_loras(loras, base=sd, prompts=["a", "b"], strengths=[0.0, 1.0])
    with pytest.raises(GenzooError, match="method='mean'"):
        merge_loras(loras, base=sd, prompts=["a", "b"], method="mean")
    code = tmp_path / "code.pt"
    code.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(GenzooError):
        read_lora(code, base_modules(sd))
    with pytest.raises(GenzooError, match="there is no file"):
        merge_loras([tmp_path / "absent.safetensors"], base=sd)


def test_changes_know_their_shape() -> None:
    low, dense = Change(torch.ones(5, 2), torch.ones(2, 7)), Change(dense=torch.ones(5, 7))
    assert low.shape == dense.shape == (5, 7)
    assert (low.rank, dense.rank) == (2, 5)
    torch.testing.assert_close(low.scaled(0.5).delta, dense.delta)
