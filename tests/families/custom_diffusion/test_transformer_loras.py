"""LoRA files of bases with a transformer, merged on what the modules read while the pipeline samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families.custom_diffusion.transformer_bases import complete_base
from safetensors.torch import load_file, save_file
from torch import Tensor

from genzoo.cli import main
from genzoo.families.custom_diffusion.lora import pipeline as pipeline_module
from genzoo.families.custom_diffusion.lora.names import base_modules
from genzoo.families.custom_diffusion.lora.pipeline import PipelineParts
from genzoo.families.custom_diffusion.lora.record import input_group, record_inputs

MODULES = {
    "flux": (
        "context_embedder",
        "transformer_blocks.0.attn.to_k",
        "transformer_blocks.0.attn.add_k_proj",
        "single_transformer_blocks.0.attn.to_v",
    ),
    "pixart": (
        "transformer_blocks.0.attn1.to_q",
        "transformer_blocks.0.attn2.to_k",
        "transformer_blocks.1.attn2.to_v",
        "transformer_blocks.1.ff.net.2",
    ),
}


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_module, "SIDE", 16)


@pytest.fixture(scope="module", params=sorted(MODULES))
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return complete_base(tmp_path_factory.mktemp("painting") / request.param, request.param)


@pytest.fixture
def loras(base: Path, tmp_path: Path) -> list[Path]:
    shapes, paths = base_modules(base), []
    for seed, rank in ((1, 2), (2, 3)):
        generator = torch.Generator().manual_seed(seed)
        tensors: dict[str, Tensor] = {}
        for module in MODULES[base.name]:
            out, width = shapes[module]
            layer = f"transformer.{module}"
            tensors[f"{layer}.lora_A.weight"] = torch.randn(rank, width, generator=generator)
            tensors[f"{layer}.lora_B.weight"] = 0.1 * torch.randn(out, rank, generator=generator)
        paths.append(tmp_path / f"lora{seed}.safetensors")
        save_file(tensors, paths[-1])
    return paths


def command(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def painter(base: Path) -> Any:
    import diffusers

    kind = json.loads((base / "transformer" / "config.json").read_text())["_class_name"]
    return getattr(diffusers, kind).from_pretrained(base, subfolder="transformer")


def test_command_merges_them_and_its_files_load_in_their_clients(
    base: Path, loras: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from diffusers import DiffusionPipeline
    from peft import PeftModel

    arguments = ["merge-concepts", f"{loras[0]}:0.8", loras[1], "--base", base]
    arguments += ["--phrase", "sks cat", "--phrase", "pll pot"]
    folder, whole = tmp_path / "folder", tmp_path / "whole"
    assert command(*arguments, "-o", folder) == 0
    report = json.loads((folder / "report.json").read_text())
    for mine, average in zip(report["residual"]["least_squares"], report["residual"]["average"], strict=True):
        assert mine < average
    assert command(*arguments, "-o", whole, "--as-base") == 0
    before, after = painter(base).state_dict(), painter(whole).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{module}.weight" for module in MODULES[base.name]}
    loaded = PeftModel.from_pretrained(painter(base), str(folder)).merge_and_unload().state_dict()
    for name, value in after.items():
        torch.testing.assert_close(loaded[name], value, atol=1e-5, rtol=1e-4)
    capsys.readouterr()
    one = tmp_path / "one.safetensors"
    if base.name == "pixart":
        assert command(*arguments, "-o", one) == 2
        assert "PixArtTransformer2DModel in diffusers cannot load a LoRA" in capsys.readouterr().err
        return
    assert command(*arguments, "-o", one) == 0
    pipeline = DiffusionPipeline.from_pretrained(base)
    pipeline.load_lora_weights(load_file(one))
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    for name, value in after.items():
        torch.testing.assert_close(pipeline.transformer.state_dict()[name], value, atol=1e-5, rtol=1e-4)


def test_inputs_are_those_of_the_pipelines_own_steps(base: Path) -> None:
    parts = PipelineParts(base)
    names = MODULES[base.name]
    groups = {input_group(name): name for name in names}
    rows = record_inputs(parts, groups, ["sks cat", "photo of a sks cat"])
    again = record_inputs(parts, groups, ["sks cat", "photo of a sks cat"])
    shapes = base_modules(base)
    for group, name in groups.items():
        assert rows[group].shape[1] == shapes[name][1]
        assert torch.equal(rows[group], again[group])
    other = record_inputs(parts, groups, ["a house"])
    assert any(
        rows[group].shape != other[group].shape or not torch.equal(rows[group], other[group])
        for group in groups
    )


def test_such_a_base_is_not_sampled_and_strange_concepts_are_not_merged_into_it(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("sample", base, "--prompt", "a cat", "--num", "1") == 2
    assert "edited and their LoRA files merged here, not sampled" in capsys.readouterr().err
    concept = tmp_path / "cat.safetensors"
    save_file({"unet.blocks.0.attn2.to_k.weight": torch.ones(2, 2)}, concept)
    code, said = {
        "flux": (2, "FluxTransformer2DModel has none of its own"),
        "pixart": (4, "no Custom Diffusion concept"),
    }[base.name]
    assert command("merge-concepts", concept, "--base", base, "-o", tmp_path / "out") == code
    assert said in capsys.readouterr().err
