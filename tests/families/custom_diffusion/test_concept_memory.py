"""What concept training keeps in memory and on the disk, and the bases that it cannot teach."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families.custom_diffusion.tiny_bases import autoencoder
from families.custom_diffusion.transformer_bases import build_transformer_base, complete_base
from safetensors.torch import load_file, save_file

import genzoo
from genzoo.api.training.train import dry_run
from genzoo.core.errors import UsageError, WeightsError
from genzoo.core.recipe import Recipe, load_recipe
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights
from genzoo.families.custom_diffusion.files.read_layouts import read_concept
from genzoo.families.custom_diffusion.training import task as task_module
from genzoo.families.custom_diffusion.training.shelf import MARK, Shelf
from genzoo.training.step_memory import StepMemory

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


@pytest.fixture
def without_weights(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a base that has configurations and words alone."""

    def copied(kind: str) -> Path:
        leave = shutil.ignore_patterns("*.safetensors")
        return Path(shutil.copytree(request.getfixturevalue(kind), tmp_path / f"{kind}_shapes", ignore=leave))

    return copied


@pytest.mark.parametrize(("kind", "optim"), [("sd", "adamw_8bit"), ("sdxl", "adamw")])
def test_memory_is_counted_without_weights(
    kind: str,
    optim: str,
    request: pytest.FixtureRequest,
    without_weights: Callable[[str], Path],
    listed: Listed,
    tmp_path: Path,
) -> None:
    options = (f"optim.name={optim}", "train.frozen_in_16_bits=true", f"task.cache={tmp_path / 'cache'}")
    whole = dry_run(recipe(request.getfixturevalue(kind), listed("cat"), *options))
    shapes = dry_run(recipe(without_weights(kind), listed("cat"), *options))
    assert whole.memory is not None
    assert shapes.memory is not None
    assert (shapes.loss, shapes.step_seconds, shapes.without_weights) == (None, None, True)
    assert "the base has no weights" in str(shapes)
    assert shapes.memory.how == "on fake tensors"
    # while the batch is encoded real kernels hold what fake ones do not show, and the other way round
    assert shapes.memory.total == pytest.approx(whole.memory.total, rel=0.02)
    assert shapes.memory.weights == whole.memory.weights
    assert (shapes.parameters, shapes.checkpoint_bytes) == (whole.parameters, whole.checkpoint_bytes)
    assert [one.ddp for one in shapes.gpus] == [1, 1, 1, 1, 1]
    assert not (tmp_path / "cache").exists()


def test_weights_that_are_not_there_do_not_train(
    without_weights: Callable[[str], Path], listed: Listed, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError):
        genzoo.train(recipe(without_weights("sd"), listed("cat")), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def counted(base: Path, concepts: Path, *options: str) -> StepMemory:
    memory = dry_run(recipe(base, concepts, *options)).memory
    assert memory is not None
    return memory


def test_each_option_takes_less(
    sd: Path, listed: Listed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genzoo.training.adamw_8bit.SMALL", 16)  # or these matrices keep float32 moments
    concepts = listed("cat")
    plain = counted(sd, concepts)
    checkpointed = counted(sd, concepts, "model.gradient_checkpointing=true")
    assert checkpointed.activations < 0.8 * plain.activations
    codes = counted(sd, concepts, "optim.name=adamw_8bit")
    assert codes.optimizer < 0.3 * plain.optimizer
    assert codes.total < plain.total
    halved = counted(sd, concepts, "train.frozen_in_16_bits=true")
    assert halved.weights < plain.weights
    assert halved.total < plain.total


def test_latents_and_texts_in_a_cache_are_not_encoded_again(sd: Path, listed: Listed, tmp_path: Path) -> None:
    base = Path(shutil.copytree(sd, tmp_path / "base"))
    shutil.rmtree(base / "vae")
    autoencoder(width=192).save_pretrained(base / "vae")
    chosen = ("data.augment_size=false", "data.horizontal_flip=false", f"task.cache={tmp_path / 'cache'}")
    chosen += ("data.image_size=64", "model.gradient_checkpointing=true", "train.batch_size=1")
    concepts = listed("cat")
    empty = counted(base, concepts, *chosen)
    genzoo.train(recipe(base, concepts, *chosen, "train.steps=9"), output=tmp_path / "run")
    filled = counted(base, concepts, *chosen)
    assert empty.phase == "while the batch is encoded"
    assert filled.total < empty.total
    assert filled.activations < 0.5 * empty.activations


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
