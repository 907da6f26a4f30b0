"""Concepts trained from a recipe on tiny random bases, until they can be merged, loaded and sampled."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families.custom_diffusion.conftest import entry
from families.custom_diffusion.pipelines import tiny_pipeline
from families.custom_diffusion.tiny_bases import make_concept
from safetensors.torch import load_file

import genzoo
from genzoo.api.recipes.build import build_dataset, build_task
from genzoo.api.recipes.plan import plan_of
from genzoo.api.run import Run
from genzoo.core.errors import UsageError
from genzoo.core.recipe import Recipe, load_recipe
from genzoo.families.custom_diffusion.data.captions import default_captions
from genzoo.families.custom_diffusion.files.apply import apply_concept
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights, fingerprint
from genzoo.families.custom_diffusion.files.read_layouts import read_concept
from genzoo.families.custom_diffusion.files.weight_names import is_key_value
from genzoo.pretrained.prompts import load_prompt_encoder

SMALL = (
    "data.image_size=16",
    "data.class_crop=centre",
    "train.steps=4",
    "train.batch_size=3",
    "train.precision=fp32",
    "train.num_workers=0",
    "train.checkpoint_every=2",
    "train.log_every=1",
    "train.tensorboard=false",
    "optim.lr=1e-2",
    "sampler.steps=2",
    "preview.every=0",
)
Listed = Callable[..., Path]


def recipe(base: Path, concepts: Path, *overrides: str) -> Recipe:
    return load_recipe("custom_diffusion", [f"concepts={concepts}", f"base_model={base}", *SMALL, *overrides])


def files_of(base: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(base.rglob("*")) if path.is_file()}


def checkpoint_of(run: Run, step: int = 4) -> dict[str, torch.Tensor]:
    return load_file(run.folder / f"checkpoints/step_{step:08d}/model.safetensors")


@pytest.fixture(scope="module")
def taught(sd: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A cat, in four steps; the base is as before."""
    folder = tmp_path_factory.mktemp("taught")
    (folder / "cat.json").write_text(json.dumps([entry(pictures, 1, "cat")]))
    before = files_of(sd)
    run = genzoo.train(recipe(sd, folder / "cat.json"), output=folder / "run")
    assert files_of(sd) == before
    return run


def test_checkpoint_holds_the_concept_only(sd: Path, taught: Run) -> None:
    run = taught
    stored = checkpoint_of(run)
    weights = {name.removeprefix("unet."): value for name, value in stored.items() if "attn2" in name}
    base = BaseWeights(sd)
    assert sorted(weights) == sorted(base.key_values)
    assert all(not torch.equal(value, base[name]) for name, value in weights.items())
    others = [value for name, value in stored.items() if "attn2" not in name]
    assert [tuple(value.shape) for value in others] == [(1, 24)]
    concept = read_concept(run.folder / "concept.safetensors")
    assert concept.phrases == ("<new1> cat",)
    assert concept.base_fingerprint == fingerprint(base)
    assert torch.equal(concept.tokens["<new1>"][0], others[0][0])
    for name, value in weights.items():
        assert torch.equal(concept.weights[name], value)


def test_new_word_begins_as_its_rare_word_and_no_other_row_can_move(sd: Path, listed: Listed) -> None:
    built = recipe(sd, listed("cat", "pot"))
    task: Any = build_task(built, build_dataset(plan_of(built)))
    table = load_prompt_encoder(sd).models[0].get_input_embeddings().weight
    (embedding,) = task.model.embeddings
    assert torch.equal(embedding.rows, table[[42170, 47629]])
    assert task.parts.tokenizers[0]("<new2>", add_special_tokens=False).input_ids == [49409]
    moving = {name for name, value in task.model.named_parameters() if value.requires_grad}
    assert {name for name in moving if not is_key_value(name)} == {
        "text_encoders.0.embeddings.token_embedding.rows"
    }


def test_whole_cross_attention_on_request(sd: Path, listed: Listed, tmp_path: Path) -> None:
    run = genzoo.train(
        recipe(sd, listed("cat"), "model.freeze_mode=crossattn", "train.steps=2"), output=tmp_path / "run"
    )
    concept = read_concept(run.folder / "concept.safetensors")
    assert concept.freeze_mode == "crossattn"
    base = BaseWeights(sd)
    assert sorted(concept.names) == sorted(base)
    assert all(not torch.equal(concept.weights[name], base[name]) for name in base)


def test_resuming_is_exact(sd: Path, taught: Run, tmp_path: Path) -> None:
    concepts = taught.folder.parent / "cat.json"
    genzoo.train(recipe(sd, concepts, "train.steps=2"), output=tmp_path / "run")
    resumed = genzoo.train(recipe(sd, concepts), output=tmp_path / "run")
    one, other = checkpoint_of(taught), checkpoint_of(resumed)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_a_run_does_not_go_on_with_another_base(
    sdxl: Path, taught: Run, listed: Listed, tmp_path: Path
) -> None:
    shutil.copytree(taught.folder, tmp_path / "run")
    with pytest.raises(UsageError, match=r"(?s)may not change.*model\.base_model"):
        genzoo.train(recipe(sdxl, listed("cat"), "train.steps=6"), output=tmp_path / "run")


def test_a_concept_may_do_without_a_word_of_its_own(sd: Path, listed: Listed, tmp_path: Path) -> None:
    chosen = ("train.steps=2", "data.augmentation=diffusers", "train.precision=bf16", "data.regularise=false")
    concepts = listed("cat", instance_prompt="photo of a moongate", class_data_dir=None)
    run = genzoo.train(recipe(sd, concepts, *chosen), output=tmp_path / "run")
    concept = read_concept(run.folder / "concept.safetensors")
    assert not concept.tokens
    assert concept.phrases == ("moongate",)
    assert run.sample(prompt="the moongate at night").pixels.shape == (1, 3, 16, 16)


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_a_taught_concept_merges_with_another_and_loads_into_a_pipeline(
    kind: str, request: pytest.FixtureRequest, listed: Listed, tmp_path: Path
) -> None:
    base: Path = request.getfixturevalue(kind)
    if kind == "sd":
        run: Run = request.getfixturevalue("taught")
    else:
        run = genzoo.train(recipe(base, listed("cat"), "train.steps=1"), output=tmp_path / "run")
    taught = run.folder / "concept.safetensors"
    pot = make_concept(base, 2, token="<new2>", phrase="<new2> pot")
    merged = genzoo.merge_concepts([taught, pot], base=base, captions=default_captions(40))
    assert merged.delta.phrases == ("<new1> cat", "<new2> pot")
    assert merged.report.constraint_residual < 1e-3
    applied = apply_concept(merged.delta, tiny_pipeline(base, ("", "_2") if kind == "sdxl" else ("",)))
    assert applied.tokens == ("<new1>", "<new2>")
    assert applied.output_change > 0


def test_joint_training_teaches_both_words(sd: Path, listed: Listed, tmp_path: Path) -> None:
    run = genzoo.train(recipe(sd, listed("cat", "pot"), "train.steps=2"), output=tmp_path / "run")
    concept = read_concept(run.folder / "concept.safetensors")
    assert list(concept.tokens) == ["<new1>", "<new2>"]
    assert concept.phrases == ("<new1> cat", "<new2> pot")
    table = load_prompt_encoder(sd).models[0].get_input_embeddings().weight
    for token, start in (("<new1>", 42170), ("<new2>", 47629)):
        assert not torch.equal(concept.tokens[token][0], table[start])


def test_samples_need_a_word_that_was_taught(taught: Run) -> None:
    run = taught
    pixels = run.sample(prompt=["a <new1> cat", "a <NEW1> cat on snow"], seed=3).pixels
    assert pixels.shape == (2, 3, 16, 16)
    assert torch.equal(run.sample(num=1, prompt="a <new1> cat", seed=3).pixels[0], pixels[0])
    with pytest.raises(UsageError, match="none of the words that were taught"):
        run.sample(num=1, prompt="photo of a cat")
    with pytest.raises(UsageError, match="has not learnt the word <new2>"):
        run.sample(num=1, prompt="a <new1> cat and a <new2> pot", any_prompt=True)
    other = run.sample(num=1, prompt="photo of a cat", any_prompt=True, seed=3).pixels
    assert not torch.equal(other[0], pixels[0])
    with pytest.raises(UsageError, match="did you mean 'prompt'"):
        run.task().conditions(1, promt="a <new1> cat")
