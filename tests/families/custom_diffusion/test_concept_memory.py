"""What concept training keeps in memory and on the disk, and the bases that it cannot teach."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families.custom_diffusion.transformer_bases import build_transformer_base, complete_base
from safetensors.torch import load_file, save_file

import genzoo
from genzoo.core.errors import UsageError
from genzoo.core.recipe import Recipe, load_recipe
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights
from genzoo.families.custom_diffusion.files.read_layouts import read_concept
from genzoo.families.custom_diffusion.training import task as task_module
from genzoo.families.custom_diffusion.training.shelf import MARK, Shelf

SMALL = (
    *("data.image_size=16", "data.class_crop=centre", "train.steps=3", "train.batch_size=3"),
    *("train.num_workers=0", "train.log_every=1", "train.tensorboard=false", "preview.every=0"),
    *("optim.lr=1e-2", "sampler.steps=2"),
)
Listed = Callable[..., Path]


def recipe(base: Path, concepts: Path, *overrides: str) -> Recipe:
    return load_recipe("custom_diffusion", [f"concepts={concepts}", f"base_model={base}", *SMALL, *overrides])


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints/step_00000003/model.safetensors")


def test_a_base_in_16_bits_teaches_the_same_concept_bit_for_bit(
    sd: Path, listed: Listed, tmp_path: Path
) -> None:
    concepts = listed("cat")
    whole = genzoo.train(recipe(sd, concepts), output=tmp_path / "whole")
    half = genzoo.train(recipe(sd, concepts, "train.frozen_in_16_bits=true"), output=tmp_path / "half")
    one, other = weights_of(whole.folder), weights_of(half.folder)
    assert one.keys() == other.keys()
    assert all(value.dtype == torch.float32 for value in other.values())
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    concept, base = read_concept(half.folder / "concept.safetensors"), BaseWeights(sd)
    assert all(not torch.equal(concept.weights[name], base[name]) for name in base.key_values)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Texts and pictures that are computed and not read."""
    done: list[str] = []
    text, moments = task_module.RememberedText, task_module.RememberedMoments
    for kind, computed in ((text, text._computed), (moments, moments._computed)):

        def count(self: Any, given: Any, kind: type = kind, computed: Any = computed) -> Any:
            done.append(kind.__name__)
            return computed(self, given)

        monkeypatch.setattr(kind, "_computed", count)
    return done


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_a_second_run_reads_texts_and_moments_from_the_disk(
    kind: str, request: pytest.FixtureRequest, listed: Listed, encoded: list[str], tmp_path: Path
) -> None:
    base: Path = request.getfixturevalue(kind)
    chosen = ("data.augment_size=false", "data.horizontal_flip=false")
    concepts = listed("cat")
    plain = genzoo.train(recipe(base, concepts, *chosen), output=tmp_path / "plain")
    computed, cached = list(encoded), (*chosen, f"task.cache={tmp_path / 'cache'}")
    first = genzoo.train(recipe(base, concepts, *cached), output=tmp_path / "first")
    assert encoded[len(computed) :] == computed
    assert "RememberedText" in computed
    files = {path: path.read_bytes() for path in (tmp_path / "cache").iterdir()}
    assert len(files) == len(computed) + 1
    encoded.clear()
    second = genzoo.train(recipe(base, concepts, *cached), output=tmp_path / "second")
    assert encoded == []
    assert {path: path.read_bytes() for path in (tmp_path / "cache").iterdir()} == files
    expected = weights_of(plain.folder)
    for run in (first, second):
        assert all(torch.equal(value, expected[name]) for name, value in weights_of(run.folder).items())


def test_texts_of_other_encoders_are_computed_anew(
    sd: Path, listed: Listed, encoded: list[str], tmp_path: Path
) -> None:
    concepts, cache = listed("cat"), f"task.cache={tmp_path / 'cache'}"
    genzoo.train(recipe(sd, concepts, cache, "train.steps=1"), output=tmp_path / "first")
    texts = encoded.count("RememberedText")
    other = shutil.copytree(sd, tmp_path / "other")
    path = next((other / "text_encoder").glob("*.safetensors"))
    changed = load_file(path)
    name = next(name for name in changed if name.endswith("final_layer_norm.bias"))
    changed[name] += 1
    save_file(changed, path, {"format": "pt"})
    encoded.clear()
    genzoo.train(recipe(other, concepts, cache, "train.steps=1"), output=tmp_path / "second")
    assert encoded.count("RememberedText") == texts > 0


def test_a_folder_of_others_is_no_cache(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match=r"mine\.txt"):
        Shelf(tmp_path).put("key", {"x": torch.zeros(2)})
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    shelf = Shelf(tmp_path / "new")
    shelf.put("key", {"x": torch.arange(2)})
    assert torch.equal(shelf.get("key")["x"], torch.arange(2))  # type: ignore[index]
    assert shelf.get("other") is None
    assert (tmp_path / "new" / MARK).is_file()


@pytest.mark.parametrize("name", ["allegro", "flux"])
def test_a_transformer_that_cannot_learn_is_refused(name: str, listed: Listed, tmp_path: Path) -> None:
    build = complete_base if name == "flux" else build_transformer_base
    base = build(tmp_path / name, name)
    concepts = listed("cat")
    kind = json.loads((base / "transformer" / "config.json").read_text())["_class_name"]
    with pytest.raises(UsageError, match=kind) as raised:
        genzoo.train(recipe(base, concepts), output=tmp_path / "run")
    told = str(raised.value)
    assert "merge-concepts takes" in told
    assert ("edit-concepts" in told) == (name != "flux")
