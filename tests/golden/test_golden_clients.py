"""Clients' rules: hashes of kohya files, which base a client takes a file for, SDXL's names, key by key."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import torch
from golden.manifest import golden_root
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from genzoo.families.custom_diffusion.files.kohya import a1111_base, hashes, invoke_base, with_hashes
from genzoo.families.custom_diffusion.lora.names import kohya_name

FOLDER = golden_root() / "concept_editing" / "clients"


def table(key: str) -> Any:
    path = FOLDER / "clients.json"
    return json.loads(path.read_text())[key] if path.is_file() else []


def tensors_of(case: dict[str, Any]) -> dict[str, Tensor]:
    if "file" in case:
        return load_file(FOLDER / case["file"])
    return {
        "lora_unet_a.lora_up.weight": (torch.arange(300000, dtype=torch.float32) % 1009) / 8,
        "lora_unet_a.alpha": torch.tensor(4.0),
    }


@pytest.mark.parametrize("case", table("hashes"), ids=lambda case: case["name"])
def test_hashes_are_those_of_sd_scripts(case: dict[str, Any], tmp_path: Any) -> None:
    tensors = tensors_of(case)
    assert hashes(tensors, case["metadata"]) == (case["sshs_model_hash"], case["sshs_legacy_hash"])
    path = tmp_path / "file.safetensors"
    path.write_bytes(with_hashes(tensors, case["metadata"]))
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["sshs_model_hash"] == case["sshs_model_hash"]
    content = path.read_bytes()
    data = content[8 + int.from_bytes(content[:8], "little") :]
    assert hashlib.sha256(data).hexdigest() == case["sshs_model_hash"]


@pytest.mark.parametrize("number", range(len(table("a1111_base"))))
def test_a1111_lists_files_under_the_recorded_base(number: int) -> None:
    case = table("a1111_base")[number]
    assert a1111_base(case["metadata"]) == case["a1111"]


@pytest.mark.parametrize("number", range(len(table("invoke_base"))))
def test_invoke_takes_files_for_the_recorded_base(number: int) -> None:
    case = table("invoke_base")[number]
    shapes = {name: tuple(shape) for name, shape in case["shapes"].items()}
    assert (invoke_base(shapes) or "refused") == case["invoke_base"]


def test_sdxl_names_are_the_recorded_ones() -> None:
    recorded = table("sdxl_sgm_names")
    for module, name in (recorded["examples"] if recorded else {}).items():
        assert kohya_name(module, original=True) == name


def test_all_140_keys_and_values_of_sdxl_have_the_recorded_names() -> None:
    recorded = table("sdxl_sgm_names")
    blocks = {f"down_blocks.{i}.attentions.{j}": d for i, d in ((1, 2), (2, 10)) for j in range(2)}
    blocks |= {f"up_blocks.{i}.attentions.{j}": d for i, d in ((0, 10), (1, 2)) for j in range(3)}
    blocks["mid_block.attentions.0"] = 10
    modules = [
        f"{block}.transformer_blocks.{k}.attn2.to_{what}"
        for block, depth in blocks.items()
        for k in range(depth)
        for what in "kv"
    ]
    names = sorted(kohya_name(module, original=True) for module in modules)
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    assert not recorded or len(names) == recorded["key_value"]
    assert not recorded or digest == recorded["sha256_of_sorted_key_value_names_joined_by_newline"]
