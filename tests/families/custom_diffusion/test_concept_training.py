"""Concepts trained from a recipe on tiny random bases, until they can be merged, loaded and sampled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families.custom_diffusion.pipelines import tiny_pipeline
from safetensors.torch import load_file

import genzoo
from genzoo.api.build import build_dataset, build_task
from genzoo.api.run import Run
from genzoo.core.errors import UsageError, WeightsError
from genzoo.core.recipe import Recipe, load_recipe
from genzoo.families.custom_diffusion.apply import apply_concept
from genzoo.families.custom_diffusion.base import BaseWeights, fingerprint
from genzoo.families.custom_diffusion.captions import default_captions
from genzoo.families.custom_diffusion.foreign import read_concept
from genzoo.families.custom_diffusion.names import is_key_value
from genzoo.pretrained.prompts import load_prompt_encoder

SMALL = (
    "data.image_size=16",
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


def test_checkpoint_holds_the_concept_only_and_the_base_stays(
    sd: Path, listed: Listed, tmp_path: Path
) -> None:
    before = files_of(sd)
    run = genzoo.train(recipe(sd, listed("cat")), output=tmp_path / "run")
    assert files_of(sd) == before
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
    task: Any = build_task(built, build_dataset(built))
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


@pytest.mark.parametrize("rule", ["official", "diffusers"])
def test_resuming_is_exact(sd: Path, listed: Listed, tmp_path: Path, rule: str) -> None:
    chosen = (f"data.augmentation={rule}", "data.class_crop=centre")
    whole = genzoo.train(recipe(sd, listed("cat"), *chosen), output=tmp_path / "whole")
    parts = tmp_path / "parts"
    genzoo.train(recipe(sd, listed("cat"), *chosen, "train.steps=2"), output=parts)
    resumed = genzoo.train(recipe(sd, listed("cat"), *chosen), output=parts)
    one, other = checkpoint_of(whole), checkpoint_of(resumed)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_a_run_does_not_go_on_with_another_base(sd: Path, sdxl: Path, listed: Listed, tmp_path: Path) -> None:
    genzoo.train(recipe(sd, listed("cat"), "train.steps=2"), output=tmp_path / "run")
    with pytest.raises(WeightsError, match="does not fit the model"):
        genzoo.train(recipe(sdxl, listed("cat")), output=tmp_path / "run")


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_two_taught_concepts_merge_and_load_into_a_pipeline(
    kind: str, request: pytest.FixtureRequest, listed: Listed, tmp_path: Path
) -> None:
    base: Path = request.getfixturevalue(kind)
    files = []
    for word, token in (("cat", "<new1>"), ("pot", "<new2>")):
        concepts = listed(word, instance_prompt=f"photo of a {token} {word}")
        run = genzoo.train(recipe(base, concepts, "train.steps=2"), output=tmp_path / word)
        files.append(run.folder / "concept.safetensors")
    merged = genzoo.merge_concepts(files, base=base, captions=default_captions(40))
    assert merged.delta.phrases == ("<new1> cat", "<new2> pot")
    assert merged.report.constraint_residual < 1e-3
    pipeline = tiny_pipeline(base, ("", "_2") if kind == "sdxl" else ("",))
    applied = apply_concept(merged.delta, pipeline)
    assert applied.tokens == ("<new1>", "<new2>")
    assert applied.output_change > 0


def test_joint_training_teaches_both_words(sd: Path, listed: Listed, tmp_path: Path) -> None:
    run = genzoo.train(recipe(sd, listed("cat", "pot")), output=tmp_path / "run")
    concept = read_concept(run.folder / "concept.safetensors")
    assert list(concept.tokens) == ["<new1>", "<new2>"]
    assert concept.phrases == ("<new1> cat", "<new2> pot")
    table = load_prompt_encoder(sd).models[0].get_input_embeddings().weight
    for token, start in (("<new1>", 42170), ("<new2>", 47629)):
        assert not torch.equal(concept.tokens[token][0], table[start])


def test_samples_need_a_word_that_was_taught(sd: Path, listed: Listed, tmp_path: Path) -> None:
    run = genzoo.train(recipe(sd, listed("cat"), "train.steps=2"), output=tmp_path / "run")
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
