"""Text encoders and the autoencoder of a base in bfloat16: what is read, what is taught, what it takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families.custom_diffusion.transformer_bases import complete_base
from step_memory_truth import foretold, taken

import genzoo
from genzoo.api.training.train import build_trainer
from genzoo.core.errors import GenzooError
from genzoo.core.recipe import Recipe, load_recipe
from genzoo.core.seeds import SampleStreams
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights
from genzoo.families.custom_diffusion.files.read_layouts import read_concept
from genzoo.families.custom_diffusion.training.model import custom_diffusion
from genzoo.training.micro_step import prepared_batch
from genzoo.training.trainer import Trainer

SMALL = (
    *("data.image_size=16", "data.class_crop=centre", "train.steps=3", "train.batch_size=3"),
    *("train.num_workers=0", "train.log_every=1", "train.tensorboard=false", "preview.every=0"),
    *("optim.lr=1e-2", "sampler.steps=2"),
)
LEAN = (
    *("model.read_precision=bf16", "train.frozen_in_16_bits=true", "optim.name=adamw_8bit"),
    *("model.gradient_checkpointing=true", "train.micro_batch_size=1"),
)
Listed = Callable[..., Path]


def recipe(base: Path, concepts: Path, *overrides: str) -> Recipe:
    return load_recipe("custom_diffusion", [f"concepts={concepts}", f"base_model={base}", *SMALL, *overrides])


def trainer(base: Path, concepts: Path, output: Path, *overrides: str) -> Trainer:
    return build_trainer(recipe(base, concepts, *overrides), output=output)[0]


def model(base: Path, read_precision: Any) -> Any:
    return custom_diffusion(str(base), modifier_tokens=["<new1>"], read_precision=read_precision)


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_lean_step_takes_what_is_foretold(
    kind: str, batch_size: int, request: pytest.FixtureRequest, listed: Listed, tmp_path: Path
) -> None:
    base: Path = request.getfixturevalue(kind)
    chosen = (*LEAN, f"train.batch_size={batch_size}")
    built = trainer(base, listed("cat"), tmp_path / "run", *chosen)
    memory = foretold(built)
    assert memory.how == "on fake tensors"
    assert memory.total - memory.helpers == pytest.approx(taken(built), rel=0.02)


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_readers_take_half_and_new_words_stay_whole(kind: str, request: pytest.FixtureRequest) -> None:
    base: Path = request.getfixturevalue(kind)
    whole, half = model(base, "fp32"), model(base, "bf16")
    for one, other in zip(whole.embeddings, half.embeddings, strict=True):
        assert torch.equal(one.rows, other.rows)
    frozen = [p for p in half.text_encoders.parameters() if not p.requires_grad]
    assert {p.dtype for p in (*frozen, *half.parts.vae.vae.parameters())} == {torch.bfloat16}
    assert {p.dtype for p in half.unet.parameters()} == {torch.float32}
    with torch.no_grad():
        expected, found = (
            one.parts.encode_captions(["photo of a cat on snow"]).hidden for one in (whole, half)
        )
    assert found.dtype == torch.bfloat16
    error = (found.float() - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert 0 < error < 0.06


def test_a_lean_run_teaches_nearly_the_same_and_paints(sd: Path, listed: Listed, tmp_path: Path) -> None:
    concepts = listed("cat")
    whole = genzoo.train(recipe(sd, concepts), output=tmp_path / "whole")
    chosen = ("model.read_precision=bf16", "train.frozen_in_16_bits=true")
    lean = genzoo.train(recipe(sd, concepts, *chosen), output=tmp_path / "lean")
    one, other = (read_concept(run.folder / "concept.safetensors") for run in (whole, lean))
    base = BaseWeights(sd)
    for name in base.key_values:
        assert not torch.equal(other.weights[name], base[name])
    assert other.tokens["<new1>"][0].dtype == torch.float32
    assert one.base_fingerprint == other.base_fingerprint
    losses = [[row["loss"] for row in run.metrics()] for run in (whole, lean)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    pictures = lean.sample(num=2, prompt="photo of a <new1> cat, (red:1.3)", steps=2).pixels
    assert bool(torch.isfinite(torch.as_tensor(pictures)).all())


def test_other_precisions_are_refused(sd: Path) -> None:
    with pytest.raises(GenzooError, match="read_precision='fp16' is not known"):
        model(sd, "fp16")


@pytest.mark.parametrize("name", ["hunyuan", "latte", "ltx", "lumina", "pixart", "sana", "wan"])
def test_a_transformer_looks_at_nearly_the_same_from_half_the_memory(
    name: str, listed: Listed, tmp_path: Path
) -> None:
    side = 32 if name in ("ltx", "sana") else 16
    base = complete_base(tmp_path / name, name)
    plain = ("train.precision=fp32", f"data.image_size={side}", "model.initializer_tokens=[k]")
    found = []
    for read in ("fp32", "bf16"):
        chosen = (*plain, f"model.read_precision={read}", "data.augment_size=false")
        built = trainer(base, listed("cat"), tmp_path / read, *chosen)
        batch, streams = prepared_batch(built.parts, next(built._batches())[0])
        loss = built.task.loss(built.model, batch, streams).loss
        loss.backward()
        found.append((built, batch, float(loss.detach())))
    (whole, one, expected), (half, other, loss) = found
    assert 0 < abs(loss - expected) < 0.05 * expected
    assert other["latents"].dtype == torch.float32
    assert not torch.equal(one["latents"], other["latents"])
    readers: Any = [[*each.model.text_encoders, each.model.pipeline.vae] for each in (whole, half)]
    bytes_ = [sum(p.nbytes for r in some for p in r.parameters() if not p.requires_grad) for some in readers]
    assert bytes_[0] == 2 * bytes_[1]
    for ours, theirs in zip(half.model.embeddings, whole.model.embeddings, strict=True):  # type: ignore[arg-type, union-attr]
        assert ours.rows.dtype == torch.float32
        assert float(ours.rows.grad.abs().max()) > 0
        assert torch.equal(ours.rows, theirs.rows)
    assert {p.dtype for p in half.model.transformer.parameters()} == {torch.float32}  # type: ignore[union-attr]
    task: Any = half.task
    asked = task.conditions(1, prompt="photo of a <new1> cat")
    pixels = task.sample(half.model, asked, SampleStreams.from_seeds(3, positions=[0]), steps=2, size=side)
    assert pixels.dtype == torch.float32
    assert bool(torch.isfinite(pixels).all())
