"""Concepts of bases with a transformer for other programs: the printed lines run on the base's pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families.custom_diffusion.transformer_bases import Bases, complete_base, make_transformer_concept
from safetensors.torch import load_file
from torch import Tensor

from genzoo.cli import main
from genzoo.core.errors import UsageError, WeightsError
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights
from genzoo.families.custom_diffusion.files.clients import export_for
from genzoo.families.custom_diffusion.files.concept import ConceptDelta
from genzoo.families.custom_diffusion.files.write_layouts import LAYOUTS, write_concept
from genzoo.families.custom_diffusion.training.model import custom_diffusion
from genzoo.pretrained.pipeline_step import ONE_FRAME, accepted
from genzoo.pretrained.pipeline_text import load_pipeline


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return Bases(tmp_path_factory.mktemp("bases"), complete_base)


def concept_of(base: Path) -> ConceptDelta:
    return make_transformer_concept(base, 1, "<new1>", "<new1> o")


def drawn(pipeline: Any, side: int) -> Tensor:
    """Latents of one step under the new word."""
    options = {
        "num_inference_steps": 1,
        "guidance_scale": 1.0,
        "height": side,
        "width": side,
        "output_type": "latent",
        "use_resolution_binning": False,
        "clean_caption": False,
        "generator": torch.Generator().manual_seed(3),
        **ONE_FRAME,
    }
    with torch.no_grad():
        call = type(pipeline).__call__
        found: Tensor = pipeline(prompt="a <new1> o", return_dict=False, **accepted(call, options))[0]
    return found


@pytest.mark.parametrize(
    ("name", "client", "weights"),
    [
        ("sana", "diffusers", "pytorch_lora_weights.safetensors"),
        ("wan", "diffusers", "pytorch_lora_weights.safetensors"),
        ("ltx", "diffusers", "pytorch_lora_weights.safetensors"),
        ("pixart", "diffusers", "transformer.safetensors"),
        ("hunyuan", "peft", "adapter_model.safetensors"),
        ("wan", "peft", "adapter_model.safetensors"),
    ],
)
def test_the_lines_make_the_pipeline_draw_as_the_taught_model_does(
    name: str, client: str, weights: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    import safetensors.torch

    base = bases[name]
    concept = concept_of(base)
    folder, lines = export_for(concept, tmp_path / "cat", client=client, base=BaseWeights(base))
    assert {path.name for path in folder.iterdir()} - {"adapter_config.json"} == {
        weights,
        "words.safetensors",
    }
    pipeline = load_pipeline(base)
    assert lines[-1].startswith("type: photo of a <new1> o, with clean_caption=False")
    exec(
        "\n".join(lines[:-1]),
        {"pipeline": pipeline, "FOLDER": str(folder), "safetensors": safetensors, "peft": peft},
    )
    taught = custom_diffusion(str(base), concept=str(write_concept(concept, tmp_path / "cat.safetensors")))
    untaught = custom_diffusion(str(base), modifier_tokens=["<new1>"], initializer_tokens=["k"])
    side = 32 if name in ("ltx", "sana") else 16
    wanted, before, found = (drawn(one, side) for one in (taught.pipeline, untaught.pipeline, pipeline))
    assert (found - wanted).abs().max() < 0.01 * (before - wanted).abs().max()


@pytest.mark.parametrize("client", ["a1111", "comfyui", "invoke"])
def test_programs_that_cannot_use_it_get_nothing_and_it_is_said(
    client: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    base = bases["sana"]
    with pytest.raises(WeightsError, match="no files of a concept of SanaTransformer2DModel") as found:
        export_for(concept_of(base), tmp_path / "cat", client=client, base=BaseWeights(base))
    assert "--for diffusers" in str(found.value.fix)
    assert not (tmp_path / "cat").exists()


def test_layouts_are_lora_alone_and_only_where_the_pipeline_loads_it(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    sana, pixart = bases["sana"], bases["pixart"]
    concept, weights = concept_of(sana), BaseWeights(sana)
    for layout in LAYOUTS.keys() - {"genzoo", "lora"}:
        with pytest.raises(WeightsError, match=f"the layout {layout} is of concepts of bases with a UNet"):
            write_concept(concept, tmp_path / layout, layout=layout, base=weights)
        assert not (tmp_path / layout).exists()
    with pytest.raises(UsageError, match="stores differences"):
        write_concept(concept, tmp_path / "lora", layout="lora")
    folder = write_concept(concept, tmp_path / "lora", layout="lora", base=weights)
    tensors = load_file(folder / "pytorch_lora_weights.safetensors")
    for name, weight in concept.weights.items():
        layer = f"transformer.{name.removesuffix('.weight')}"
        change = tensors[f"{layer}.lora_B.weight"] @ tensors[f"{layer}.lora_A.weight"]
        torch.testing.assert_close(change, weight - weights[name], atol=1e-5, rtol=0)
    assert len(tensors) == 2 * len(concept.weights)
    with pytest.raises(WeightsError, match="PixArtTransformer2DModel in diffusers cannot load a LoRA"):
        write_concept(concept_of(pixart), tmp_path / "other", layout="lora", base=BaseWeights(pixart))


def test_command_writes_what_diffusers_loads_and_says_what_nobody_does(
    bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_concept(concept_of(bases["pixart"]), tmp_path / "cat.safetensors")
    with pytest.raises(SystemExit) as ended:
        main(["export", str(path), str(tmp_path / "out"), "--for", "diffusers"])
    assert not ended.value.code
    assert (
        "PixArtTransformer2DModel in diffusers cannot load a LoRA: these are whole" in capsys.readouterr().out
    )
    assert load_file(tmp_path / "out" / "words.safetensors")["text_encoder"].shape == (1, 12)
    with pytest.raises(SystemExit) as ended:
        main(["export", str(path), str(tmp_path / "web"), "--for", "a1111"])
    assert ended.value.code == 4
    assert "it runs Stable Diffusion 1, 2 and XL" in capsys.readouterr().err
    assert not (tmp_path / "web").exists()
