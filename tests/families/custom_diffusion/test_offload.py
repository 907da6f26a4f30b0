"""Text encoders and autoencoder of a base in the host's memory between uses: the same steps, less memory."""

from __future__ import annotations

import contextlib
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from families.custom_diffusion.tiny_bases import autoencoder
from families.custom_diffusion.transformer_bases import build_transformer_base
from safetensors.torch import load_file
from step_memory_truth import foretold, taken

import genzoo
from genzoo.api.training.train import build_trainer, dry_run
from genzoo.core.errors import UsageError
from genzoo.core.recipe import Recipe, load_recipe
from genzoo.core.seeds import SampleStreams
from genzoo.families.custom_diffusion.training.model import custom_diffusion
from genzoo.nn.resting import Resting, as_on_a_device
from genzoo.training.allocations import AllocationCounter
from genzoo.training.held_objects import frozen_tensors, resting_tensors
from genzoo.training.step_memory import fake_drawing

SMALL = (
    *("data.image_size=16", "data.class_crop=centre", "train.steps=3", "train.batch_size=3"),
    *("train.num_workers=0", "train.log_every=1", "train.tensorboard=false", "preview.every=0"),
    *("optim.lr=1e-2", "sampler.steps=2", "train.micro_batch_size=1"),
)
Listed = Callable[..., Path]


def recipe(base: Path, concepts: Path, *overrides: str) -> Recipe:
    return load_recipe("custom_diffusion", [f"concepts={concepts}", f"base_model={base}", *SMALL, *overrides])


def left_by(base: Path, concepts: Path, folder: Path, *overrides: str) -> tuple[list[float], Any]:
    run = genzoo.train(recipe(base, concepts, *overrides), output=folder)
    weights = load_file(run.folder / "checkpoints/step_00000003/model.safetensors")
    return [row["loss"] for row in run.metrics()], weights


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
@pytest.mark.parametrize("read", ["fp32", "bf16"])
def test_a_run_is_the_same_bit_for_bit(
    kind: str, read: str, request: pytest.FixtureRequest, listed: Listed, tmp_path: Path
) -> None:
    base, concepts = request.getfixturevalue(kind), listed("cat")
    chosen = (f"model.read_precision={read}", "train.frozen_in_16_bits=true")
    losses, weights = left_by(base, concepts, tmp_path / "held", *chosen)
    for place in ("here", "away"):
        with as_on_a_device() if place == "away" else contextlib.nullcontext():
            found = left_by(base, concepts, tmp_path / place, *chosen, "model.offload=true")
        assert found[0] == losses
        assert found[1].keys() == weights.keys()
        assert all(torch.equal(value, weights[name]) for name, value in found[1].items())


def test_a_run_goes_on_with_what_it_began_without(sd: Path, listed: Listed, tmp_path: Path) -> None:
    concepts = listed("cat")
    losses, weights = left_by(sd, concepts, tmp_path / "whole")
    genzoo.train(recipe(sd, concepts), output=tmp_path / "cut", until=1)
    with as_on_a_device():
        resumed = left_by(sd, concepts, tmp_path / "cut", "model.offload=true")
    assert resumed[0] == losses
    assert all(torch.equal(value, weights[name]) for name, value in resumed[1].items())


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_the_step_takes_what_is_foretold(
    kind: str, request: pytest.FixtureRequest, listed: Listed, tmp_path: Path
) -> None:
    base = request.getfixturevalue(kind)
    trainers = {}
    for offload in ("false", "true"):
        chosen = ("model.gradient_checkpointing=true", f"model.offload={offload}")
        trainers[offload] = build_trainer(recipe(base, listed("cat"), *chosen), output=tmp_path / offload)[0]
    held, away = (foretold(trainer) for trainer in trainers.values())
    assert away.how == "on fake tensors"
    assert away.total - away.helpers == pytest.approx(taken(trainers["true"]), rel=0.02)
    assert (held.resting, away.helpers) == (0, 0)
    assert away.weights + away.resting == held.weights + held.helpers
    assert away.resting == sum(one.nbytes for one in resting_tensors(trainers["true"].parts))


def test_nothing_of_the_encoders_is_on_the_device_while_the_picture_is_looked_at(
    sdxl: Path, listed: Listed, tmp_path: Path
) -> None:
    trainer, _ = build_trainer(recipe(sdxl, listed("cat"), "model.offload=true"), output=tmp_path / "run")
    model: Any = trainer.model
    encoders = list(model.parts.text_encoders)
    copies: list[weakref.ref[torch.Tensor]] = []
    seen: list[tuple[int, int]] = []
    kept = {id(one) for one in model.text_encoders.parameters()}

    def note(encoder: torch.nn.Module, given: Any, options: Any) -> None:
        copies.extend(weakref.ref(one) for one in encoder.parameters() if id(one) not in kept)

    def look(*_: Any) -> None:
        seen.append((len(copies), sum(one() is not None for one in copies)))

    for encoder in encoders:
        encoder.register_forward_pre_hook(note, with_kwargs=True)
    model.unet.register_forward_pre_hook(look)
    model.unet.register_full_backward_hook(look)
    with as_on_a_device():
        taken(trainer)
    assert seen
    assert {alive for made, alive in seen if made} == {0}
    assert copies
    assert {id(one) for one in model.text_encoders.parameters()} == kept


def test_the_dry_run_says_what_lies_elsewhere(sd: Path, listed: Listed) -> None:
    held = dry_run(recipe(sd, listed("cat")))
    away = dry_run(recipe(sd, listed("cat"), "model.offload=true"))
    assert away.loss == held.loss
    assert away.memory_bytes < held.memory_bytes
    assert "  at rest     " in str(away)
    assert "at rest" not in str(held)


PAINTED = ("preview.every=1", "preview.num=3", "model.read_precision=bf16", "train.frozen_in_16_bits=true")


@pytest.mark.parametrize("chosen", [(), ("model.offload=true",), ("sampler.precision=fp32",)])
@pytest.mark.parametrize("block_size", [1, 4])
def test_what_previews_take_is_foretold(
    chosen: tuple[str, ...], block_size: int, sd: Path, listed: Listed, tmp_path: Path
) -> None:
    options = (*PAINTED, *chosen, f"sampler.block_size={block_size}")
    trainer, _ = build_trainer(recipe(sd, listed("cat"), *options), output=tmp_path / "run")
    parts, task = trainer.parts, cast(Any, trainer.task)
    num = min(block_size, 3)
    asked = task.conditions(num, prompt="photo of a <new1> cat")
    streams = SampleStreams.from_seeds(3, positions=range(num))
    held = [*parts.model.parameters(), *parts.model.buffers(), *frozen_tensors(parts)]
    with trainer.averaged_model() as model, as_on_a_device(), AllocationCounter(held) as counter:
        task.sample(model, asked, streams)
    assert fake_drawing(parts, num) == pytest.approx(counter.peak, rel=0.1)


def test_a_dry_run_names_previews_where_they_take_the_most(sd: Path, listed: Listed, tmp_path: Path) -> None:
    base = Path(shutil.copytree(sd, tmp_path / "base"))
    shutil.rmtree(base / "vae")
    autoencoder(width=192).save_pretrained(base / "vae")
    lean = (*PAINTED, "optim.name=adamw_8bit", "task.prompts=[photo of a <new1> cat]")
    together, one, none = (
        dry_run(recipe(base, listed("cat"), *lean, *chosen)).memory
        for chosen in (["sampler.block_size=3"], ["sampler.block_size=1"], ["preview.every=0"])
    )
    assert together is not None
    assert one is not None
    assert none is not None
    assert together.phase == "while previews are drawn"
    assert together.gradients == 0
    assert none.phase != together.phase
    assert none.total <= one.total < together.total


def test_previews_are_the_same_from_rounded_weights(sd: Path, listed: Listed, tmp_path: Path) -> None:
    trainer, _ = build_trainer(recipe(sd, listed("cat"), *PAINTED), output=tmp_path / "run")
    task, storage = cast(Any, trainer.task), trainer.parts.frozen_storage
    assert storage is not None
    asked = task.conditions(2, prompt="photo of a <new1> cat")
    pictures = {}
    for precision in ("run", "fp32"):
        for place in ("rounded", "widened"):
            streams = SampleStreams.from_seeds(3, positions=range(2))
            with trainer.averaged_model() as model:
                around = storage.widened() if place == "widened" else contextlib.nullcontext()
                assert {one.dtype for one in storage.parameters} == {torch.bfloat16}
                with around:
                    pictures[precision, place] = task.sample(model, asked, streams, precision=precision)
        assert torch.equal(pictures[precision, "rounded"], pictures[precision, "widened"])
    # a run under bf16 is sampled under bf16 where nothing else is asked for
    assert not torch.equal(pictures["run", "rounded"], pictures["fp32", "rounded"])
    assert {one.dtype for one in storage.parameters} == {torch.bfloat16}


def test_copies_are_made_once_for_weights_that_are_shared() -> None:
    one = torch.nn.Linear(3, 3, bias=False).requires_grad_(False)
    two = torch.nn.Linear(3, 3, bias=False)
    two.weight = one.weight
    resting = Resting([one, two])
    assert resting.tensors() == [one.weight]
    kept = one.weight
    with resting.awake():
        assert one.weight is kept
    with as_on_a_device(), resting.awake():
        assert one.weight is two.weight
        assert one.weight is not kept
        assert torch.equal(one.weight, kept)
        with resting.awake():
            assert one.weight is two.weight
    assert one.weight is two.weight is kept


def test_a_base_with_a_transformer_keeps_its_parts_where_they_are(tmp_path: Path) -> None:
    base = build_transformer_base(tmp_path / "pixart", "pixart")
    with pytest.raises(UsageError, match=r"model\.offload is of bases with a UNet"):
        custom_diffusion(str(base), modifier_tokens=["<new1>"], offload=True)
