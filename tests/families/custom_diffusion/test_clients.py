"""Files for other programs, read the way each program documents it, key by key."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families.custom_diffusion.pipelines import output, trained
from families.custom_diffusion.tiny_bases import make_concept
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from genzoo.cli import main
from genzoo.core.errors import UsageError, WeightsError
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights
from genzoo.families.custom_diffusion.files.clients import CLIENTS, export_for
from genzoo.families.custom_diffusion.files.concept import ConceptDelta
from genzoo.families.custom_diffusion.files.kohya import a1111_base, invoke_base
from genzoo.families.custom_diffusion.files.write_layouts import write_concept


@pytest.fixture
def concept(sd: Path) -> ConceptDelta:
    return make_concept(sd, 1, token="<new1>", phrase="<new1> cat")


def kohya_deltas(path: Path) -> dict[str, Tensor]:
    """The rule of A1111, ComfyUI, InvokeAI and sd-scripts: up @ down, times alpha / rank where there is
    one.
    """
    tensors, found = load_file(path), {}
    for key in [key for key in tensors if key.endswith(".lora_down.weight")]:
        layer = key.removesuffix(".lora_down.weight")
        assert f"{layer}.alpha" not in tensors
        found[layer] = tensors[f"{layer}.lora_up.weight"] @ tensors[key]
    assert len(tensors) == 2 * len(found)
    return found


def wanted_deltas(concept: ConceptDelta, base: BaseWeights) -> dict[str, Tensor]:
    """By the names that those programs look up: lora_unet_ and the UNet's own, with underscores."""
    return {
        "lora_unet_" + name.removesuffix(".weight").replace(".", "_"): weight - base[name]
        for name, weight in concept.weights.items()
    }


@pytest.mark.parametrize(
    ("client", "loras", "words"),
    [("a1111", "models/Lora", "embeddings"), ("comfyui", "models/loras", "models/embeddings")],
)
def test_web_interfaces_find_every_layer_and_the_word(
    client: str, loras: str, words: str, sd: Path, concept: ConceptDelta, tmp_path: Path
) -> None:
    base = BaseWeights(sd)
    folder, lines = export_for(concept, tmp_path / "my_cat", client=client, base=base)
    found, wanted = kohya_deltas(folder / loras / "my_cat.safetensors"), wanted_deltas(concept, base)
    assert found.keys() == wanted.keys()
    for name, delta in wanted.items():
        torch.testing.assert_close(found[name], delta, atol=1e-5, rtol=0)
    with safe_open(folder / loras / "my_cat.safetensors", framework="pt") as file:
        metadata = file.metadata()
    # A1111 shows ss_output_name and knows the base by these
    assert metadata["ss_output_name"] == "my_cat"
    assert a1111_base(metadata) == "SD1"
    assert metadata["modelspec.trigger_phrase"] == "<new1> cat"
    word = load_file(folder / words / "new1.safetensors")
    assert {name: tuple(value.shape) for name, value in word.items()} == {"emb_params": (1, 24)}
    typed = {"a1111": "<lora:my_cat:1> photo of a new1 cat", "comfyui": "photo of a embedding:new1 cat"}
    assert lines[-1] == f"type: {typed[client]}"
    assert any(f"{loras}/my_cat.safetensors" in line for line in lines)


def test_sdxl_words_have_both_encoders_and_its_version(sdxl: Path, tmp_path: Path) -> None:
    concept = make_concept(sdxl, 1, token="<new1>", phrase="<new1> cat")
    folder, _ = export_for(concept, tmp_path / "cat", client="a1111", base=BaseWeights(sdxl))
    with safe_open(folder / "models/Lora/cat.safetensors", framework="pt") as file:
        assert a1111_base(file.metadata()) == "SDXL"
    assert load_file(folder / "embeddings/new1.safetensors").keys() == {"clip_l", "clip_g"}
    _, lines = export_for(concept, tmp_path / "two", client="diffusers", base=BaseWeights(sdxl))
    assert sum("load_textual_inversion" in line for line in lines) == 2


def wide_concept(folder: Path, width: int) -> tuple[ConceptDelta, BaseWeights]:
    """A base whose one attention reads text as wide as a released model's, and a concept of it."""
    from safetensors.torch import save_file

    (folder / "unet").mkdir(parents=True)
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    save_file({name: torch.zeros(4, width)}, folder / "unet" / "diffusion_pytorch_model.safetensors")
    base = BaseWeights(folder)
    rows = torch.randn(4, width, generator=torch.Generator().manual_seed(0))
    tokens = {"<new1>": [torch.ones(width)]}
    return ConceptDelta({name: rows}, tokens, phrases=("<new1> cat",)), base


@pytest.mark.parametrize(("width", "kind"), [(768, "sd-1"), (1024, "sd-2")])
def test_invoke_takes_the_files_for_the_right_base(width: int, kind: str, tmp_path: Path) -> None:
    concept, base = wide_concept(tmp_path / "base", width)
    folder, lines = export_for(concept, tmp_path / "cat", client="invoke", base=base)
    tensors = load_file(folder / "loras" / "cat.safetensors")
    assert invoke_base({name: tuple(value.shape) for name, value in tensors.items()}) == kind
    (word,) = load_file(folder / "embeddings" / "new1.safetensors").values()
    assert word.shape[-1] == width
    assert kind in lines[0]
    assert "(word)1.2" in lines[-1]


def test_invoke_is_told_apart_where_it_would_refuse(sd: Path, concept: ConceptDelta, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="InvokeAI would refuse"):
        export_for(concept, tmp_path / "x", client="invoke", base=BaseWeights(sd))
    assert not (tmp_path / "x").exists()


def test_peft_loads_its_folder_at_the_full_strength(
    sd: Path, concept: ConceptDelta, tmp_path: Path, pipeline: Any
) -> None:
    peft = pytest.importorskip("peft")
    # ranks that differ are where a config goes wrong silently
    first = next(iter(concept.weights))
    generator = torch.Generator().manual_seed(7)
    extra = torch.randn(concept.weights[first].shape, generator=generator)
    concept = dataclasses.replace(concept, weights={**concept.weights, first: concept.weights[first] + extra})
    folder, lines = export_for(concept, tmp_path / "adapter", client="peft", base=BaseWeights(sd))
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["rank_pattern"] == config["alpha_pattern"]
    ranks = {name: config["rank_pattern"].get(name, config["r"]) for name in config["target_modules"]}
    assert ranks[first.removesuffix(".weight")] > min(ranks.values())
    assert len(config["target_modules"]) == len(concept.weights)
    wanted = trained(pipeline, concept)
    model = peft.PeftModel.from_pretrained(pipeline.unet, str(folder))
    torch.testing.assert_close(output(model), wanted, atol=1e-4, rtol=1e-4)
    assert lines[0].startswith("pipeline.unet = peft.PeftModel.from_pretrained")


def test_diffusers_loads_what_the_lines_name(sd: Path, concept: ConceptDelta, tmp_path: Path) -> None:
    folder, lines = export_for(concept, tmp_path / "cat", client="diffusers", base=BaseWeights(sd))
    names = {path.name for path in folder.iterdir()}
    assert names == {"pytorch_lora_weights.safetensors", "<new1>.safetensors"}
    assert all(any(name in line for line in lines) for name in names)
    keys = load_file(folder / "pytorch_lora_weights.safetensors")
    assert all(key.startswith("unet.") and ".processor." not in key for key in keys)
    assert lines[-1] == "type: photo of a <new1> cat"


def test_command_names_files_places_and_words(
    sd: Path, concept: ConceptDelta, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_concept(
        dataclasses.replace(concept, notes={"base_path": str(sd)}), tmp_path / "cat.safetensors"
    )
    with pytest.raises(SystemExit) as ended:
        main(["export", str(path), str(tmp_path / "out"), "--for", "a1111"])
    assert not ended.value.code
    assert "type: <lora:out:1> photo of a new1 cat" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["export", str(path), str(tmp_path / "other"), "--for", "a1111", "--to", "kohya"])
    assert ended.value.code == 2
    with pytest.raises(SystemExit) as ended:
        main(["export", str(path), str(tmp_path / "other"), "--for", "a1112"])
    assert ended.value.code == 2
    assert "a1111" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_every_client_has_a_layout() -> None:
    assert set(CLIENTS) == {"a1111", "comfyui", "diffusers", "invoke", "peft"}
    with pytest.raises(UsageError, match="did you mean 'comfyui'"):
        export_for(ConceptDelta.__new__(ConceptDelta), "x", client="comfui", base=None)  # type: ignore[arg-type]
