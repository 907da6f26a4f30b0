"""Concepts whose names were changed by wrappers, archives and file systems are the same concepts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families.custom_diffusion.tiny_bases import make_concept
from safetensors.torch import save_file

from genzoo.core.errors import CheckpointError
from genzoo.families.custom_diffusion.files.open_concept import open_concept
from genzoo.families.custom_diffusion.files.read_layouts import PROCESSOR_FILES, read_concept
from genzoo.families.custom_diffusion.files.token_files import word_of
from genzoo.families.custom_diffusion.files.write_layouts import write_concept
from genzoo.pretrained.loading import load_foreign

PREFIXES = (
    "module.",
    "unet.",
    "_orig_mod.unet.",
    "module.model.unet.",
    "pipeline._fsdp_wrapped_module.unet.",
)
WINDOWS = ("_new1_", "new1", "%3Cnew1%3E", "[new1]", "＜new1＞", "(new1)", "&lt;new1&gt;", "{new1}")


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("layout", ["official", "compvis", "diffusers"])
@pytest.mark.parametrize("nest", [(), ("state_dict",), ("trainer", "ema")], ids=".".join)
def test_prefixes_and_nesting_change_nothing(
    sd: Path, tmp_path: Path, layout: str, prefix: str, nest: tuple[str, ...]
) -> None:
    concept = make_concept(sd, 1, token="<new1>", phrase="<new1> cat")
    path = write_concept(concept, tmp_path / ("a" if layout == "diffusers" else "a.bin"), layout=layout)
    file = path / PROCESSOR_FILES[1] if path.is_dir() else path
    tree: dict[str, Any] = load_foreign(file)
    inner = tree.get("unet", tree)
    renamed = {name if name == "embed" else prefix + name: value for name, value in inner.items()}
    tree = {**tree, "unet": renamed} if "unet" in tree else renamed
    for name in reversed(nest):
        tree = {name: tree}
    torch.save(tree, file)
    found = read_concept(path)
    assert found.weights.keys() == concept.weights.keys()
    assert found.tokens.keys() == concept.tokens.keys()


def test_one_weight_under_two_names_is_refused(sd: Path, tmp_path: Path) -> None:
    path = write_concept(
        make_concept(sd, 1, token="<new1>", phrase="<new1> cat"), tmp_path / "a.bin", layout="official"
    )
    tree = load_foreign(path)
    name = next(iter(tree["unet"]))
    tree["unet"][f"module.{name}"] = tree["unet"][name] + 1
    torch.save(tree, path)
    with pytest.raises(CheckpointError, match="twice"):
        read_concept(path)


def test_two_concepts_in_a_file_are_a_choice(sd: Path, tmp_path: Path) -> None:
    path = write_concept(
        make_concept(sd, 1, token="<new1>", phrase="<new1> cat"), tmp_path / "a.bin", layout="official"
    )
    tree = load_foreign(path)
    torch.save({"one": tree, "two": tree}, path)
    with pytest.raises(CheckpointError, match=r"(?s)2 sets.*one, two"):
        read_concept(path)


@pytest.mark.parametrize("stem", WINDOWS)
@pytest.mark.parametrize("kind", ["bin", "one encoder", "two encoders"])
def test_renamed_token_files_keep_their_word(sd: Path, tmp_path: Path, stem: str, kind: str) -> None:
    concept = make_concept(sd, 1, token="<new1>", phrase="<new1> cat")
    path = write_concept(concept, tmp_path / "a", layout="diffusers")
    (row,) = concept.tokens["<new1>"]
    if kind == "bin":
        (path / "<new1>.bin").rename(path / f"{stem}.bin")
    else:
        (path / "<new1>.bin").unlink()
        names = ["clip_l", "clip_g"] if kind == "two encoders" else ["emb_params"]
        save_file({name: row[None].clone() for name in names}, path / f"{stem}.safetensors")
    for place in (path, path / PROCESSOR_FILES[1]):
        found = read_concept(place)
        assert list(found.tokens) == ["<new1>"]
        assert all(torch.equal(value, row) for value in found.tokens["<new1>"])


def test_words_with_letters_that_only_look_like_brackets_stay() -> None:
    assert [word_of(stem) for stem in ("<a b>", "my_cat", "<my-cat>")] == ["<a b>", "<my_cat>", "<my-cat>"]


def test_two_files_of_one_word_must_agree(sd: Path, tmp_path: Path) -> None:
    path = write_concept(
        make_concept(sd, 1, token="<new1>", phrase="<new1> cat"), tmp_path / "a", layout="diffusers"
    )
    tree = load_foreign(path / "<new1>.bin")
    torch.save(tree, path / "copy.bin")
    assert list(read_concept(path).tokens) == ["<new1>"]
    torch.save({"<new1>": tree["<new1>"] + 1}, path / "copy.bin")
    with pytest.raises(CheckpointError, match=r"(?s)<new1>, and they differ.*<new1>.bin and copy.bin"):
        read_concept(path)


def test_other_files_of_the_folder_are_no_words(sd: Path, tmp_path: Path) -> None:
    path = write_concept(
        make_concept(sd, 1, token="<new1>", phrase="<new1> cat"), tmp_path / "a", layout="diffusers"
    )
    torch.save({"state": {"x": torch.ones(3)}, "lr": 0.1}, path / "optimizer.bin")
    save_file({"a": torch.ones(2), "b": torch.ones(2)}, path / "pytorch_lora_weights.safetensors")
    (path / "broken.bin").write_bytes(b"nothing")
    assert list(read_concept(path).tokens) == ["<new1>"]


def test_weights_of_others_are_not_taken_for_a_concept(tmp_path: Path) -> None:
    save_file({"blocks.0.attn.qkv.weight": torch.ones(2, 2)}, tmp_path / "dit.safetensors")
    assert open_concept(tmp_path / "dit.safetensors") is None
