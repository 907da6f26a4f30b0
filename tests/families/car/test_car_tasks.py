"""Training and sampling tasks: losses fall, the frozen base stays, resume is exact, samples are their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families.car.tiny import (
    NUM_CLASSES,
    PATCH_NUMS,
    pictures,
    saved,
    streams,
    tiny_car,
    tiny_codec,
    tiny_task,
    tiny_var,
    tiny_vqvae,
)
from safetensors.torch import load_file
from torch import Tensor

from genzoo.core.checkpoint import latest_valid, load_checkpoint
from genzoo.core.errors import CheckpointError, DataError, GenzooError, ShapeError, UsageError
from genzoo.core.model_state import frozen_digest, restore_weights
from genzoo.families.car.vqvae.codec import VQVAECodec
from genzoo.families.car.vqvae.task import VQVAETask
from genzoo.families.car.weights.loading import load_var_weights
from genzoo.training.config import TrainConfig
from genzoo.training.trainer import Trainer


class Squares:
    """Pictures of one bright square, whose place is the label."""

    sample_shape = (3, 8, 8)
    num_classes = NUM_CLASSES
    class_names = None
    fingerprint = "squares"

    def __len__(self) -> int:
        return 20

    def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        label = index % NUM_CLASSES
        pixels = torch.full((3, 8, 8), -0.8)
        pixels[:, label : label + 3, 2 : 5 + index % 3] = 0.8
        return {"pixels": pixels, "class_labels": torch.tensor(label)}


def trainer(task: Any, output: Path, *, steps: int = 30, **config: Any) -> Trainer:
    settings = {"steps": steps, "batch_size": 10, "checkpoint_every": 5, "log_every": 1, "seed": 0}
    optim = {"name": "adamw", "lr": 3e-3, "weight_decay": 0.01}
    plan = TrainConfig(**settings, tensorboard=False, ema_decay=0.9, num_workers=0, **config)
    return Trainer(task, Squares(), plan, optim=optim, output=output)


def losses(output: Path) -> list[float]:
    import json

    return [json.loads(line)["loss"] for line in (output / "metrics.jsonl").read_text().splitlines()]


def build_vqvae(folder: Path) -> VQVAETask:
    return VQVAETask(tiny_vqvae())


def build_var(folder: Path) -> Any:
    return tiny_task(folder, tiny_var(drop_path=0.1))


def build_car(folder: Path) -> Any:
    path = saved(tiny_var(), folder / "var.safetensors")
    model = tiny_car(var_weights=path, drop_path=0.1)
    model.base.load_state_dict(load_var_weights(path, model.base))
    return tiny_task(folder, model, control="canny")


STAGES: dict[str, Callable[[Path], Any]] = {"vqvae": build_vqvae, "var": build_var, "car": build_car}


@pytest.mark.parametrize("stage", STAGES)
def test_loss_falls_and_a_resumed_run_is_the_same_bit_for_bit(stage: str, tmp_path: Path) -> None:
    trainer(STAGES[stage](tmp_path), tmp_path / "whole").fit()
    curve = losses(tmp_path / "whole")
    assert sum(curve[-5:]) < 0.9 * sum(curve[:5])
    trainer(STAGES[stage](tmp_path), tmp_path / "cut", steps=15).fit()
    trainer(STAGES[stage](tmp_path), tmp_path / "cut").fit()
    whole, cut = (load_checkpoint(latest_valid(tmp_path / name / "checkpoints")) for name in ("whole", "cut"))
    assert whole.step == cut.step == 30
    for part in ("weights", "ema", "optimizer"):
        ours, theirs = getattr(whole, part), getattr(cut, part)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_base_stays_and_the_checkpoint_holds_the_branch_and_the_hash(tmp_path: Path) -> None:
    task = build_car(tmp_path)
    before, digest = task.model.base.state_dict(), frozen_digest(task.model)
    before = {key: value.clone() for key, value in before.items()}
    trainer(task, tmp_path / "run", steps=5).fit()
    assert all(torch.equal(value, before[key]) for key, value in task.model.base.state_dict().items())
    stored = load_checkpoint(latest_valid(tmp_path / "run/checkpoints"))
    assert stored.weights
    assert all(name.startswith("car_") for name in stored.weights)
    assert stored.state["frozen"] == digest == frozen_digest(task.model)
    other = tiny_car(seed=7)
    with pytest.raises(CheckpointError, match="not those that this checkpoint was trained on"):
        restore_weights(other, stored.weights, frozen=stored.state["frozen"], where="here")


def test_weights_come_from_a_run_folder(tmp_path: Path) -> None:
    task = build_var(tmp_path)
    trainer(task, tmp_path / "run", steps=5).fit()
    averaged = load_checkpoint(latest_valid(tmp_path / "run/checkpoints")).averaged()
    read = load_var_weights(str(tmp_path / "run"), tiny_var(drop_path=0.1))
    assert all(torch.equal(read[key], value) for key, value in averaged.items())
    trainer(build_vqvae(tmp_path), tmp_path / "codes", steps=5).fit()
    codec = VQVAECodec(str(tmp_path / "codes"), patch_nums=PATCH_NUMS)
    assert codec.latent_shape((3, 8, 8)) == (4, 4, 4)
    trainer(build_car(tmp_path), tmp_path / "branch", steps=5).fit()
    with pytest.raises(CheckpointError, match="a part of a model"):
        load_var_weights(str(tmp_path / "branch"), tiny_var())


def test_a_model_is_refused_on_the_tokens_of_another_vqvae(tmp_path: Path) -> None:
    trainer(build_var(tmp_path), tmp_path / "run", steps=5).fit()
    other = tiny_task(tmp_path, tiny_var(drop_path=0.1))
    other.codec = tiny_codec(tmp_path, seed=5)
    with pytest.raises(CheckpointError, match="the VQVAE of the tokens is not the one"):
        trainer(other, tmp_path / "run", steps=10).fit()
    trainer(build_var(tmp_path), tmp_path / "run", steps=10).fit()


def test_cached_moments_give_the_tokens_of_the_pixels(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, tiny_var())
    batch = {"pixels": pictures(3), "class_labels": torch.tensor([0, 4, 2])}
    cached = {"moments": task.codec.moments(batch["pixels"]), "class_labels": batch["class_labels"]}
    one, other = task.prepare_batch(batch, streams(0, 1, 2)), task.prepare_batch(cached, streams(0, 1, 2))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert one["ids"].shape == (3, 21)
    assert one["teacher_input"].shape == (3, 20, 4)


def test_labels_are_dropped_as_often_as_asked_and_controls_never(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, tiny_car(), label_dropout=0.5, control="canny")
    batch = {"pixels": pictures(64), "class_labels": torch.zeros(64, dtype=torch.long)}
    prepared = task.prepare_batch(batch, streams(*range(64)))
    assert 16 < (prepared["class_labels"] == NUM_CLASSES).sum() < 48
    assert [tuple(c.shape) for c in prepared["control"]] == [(64, 3, 2 * p, 2 * p) for p in PATCH_NUMS]
    assert all(c.flatten(1).std(dim=1).min() > 0 for c in prepared["control"])


OPTIONS = {"guidance_scale": 2.5, "top_k": 12, "top_p": 0.95}


@pytest.mark.parametrize("fusion", ["conv", "vqvae_encoder"])
def test_a_sample_depends_on_its_own_stream_only(fusion: str, tmp_path: Path) -> None:
    task = tiny_task(tmp_path, tiny_car(fusion=fusion), control="canny", sampler=OPTIONS)
    controls = task.extract(pictures(3))

    def sample(rows: list[int]) -> Tensor:
        conditions = task.conditions(len(rows), class_labels=rows, control=controls[rows])
        return task.sample(task.model, conditions, streams(*rows))

    whole = sample([0, 1, 2])
    assert whole.shape == (3, 3, 8, 8)
    assert whole.abs().max() <= 1
    assert torch.allclose(whole, torch.cat([sample([2]), sample([0, 1])])[[1, 2, 0]], atol=1e-4)
    uncontrolled = task.sample(task.model, task.conditions(3, class_labels=[0, 1, 2]), streams(0, 1, 2))
    assert not torch.allclose(whole, uncontrolled, atol=1e-2)


def test_without_a_control_car_samples_as_its_base(tmp_path: Path) -> None:
    model = tiny_car()
    controlled, plain = tiny_task(tmp_path, model), tiny_task(tmp_path, model.base)
    conditions = plain.conditions(2, class_labels=3)
    one = controlled.sample(model, conditions, streams(0, 1), **OPTIONS)
    assert torch.equal(one, plain.sample(model.base, conditions, streams(0, 1), **OPTIONS))


def test_a_shared_control_is_encoded_once_until_the_weights_change(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, tiny_car(), control="canny")
    calls = []
    task.model.car_control_convs.register_forward_hook(lambda *_: calls.append(1))
    conditions = task.conditions(4, class_labels=1, control_from=pictures(1))
    first = task.sample(task.model, conditions, streams(0, 1, 2, 3))
    assert len(calls) == len(PATCH_NUMS)
    assert torch.equal(task.sample(task.model, conditions, streams(0, 1, 2, 3)), first)
    assert len(calls) == len(PATCH_NUMS)
    with torch.no_grad():
        task.model.car_control_convs.conv_out.bias.add_(1)
    task.sample(task.model, conditions, streams(0, 1, 2, 3))
    assert len(calls) == 2 * len(PATCH_NUMS)


@pytest.mark.parametrize("redraw", ["inside", "outside"])
def test_a_picture_changes_in_its_region_only(redraw: str, tmp_path: Path) -> None:
    task, image = tiny_task(tmp_path, tiny_var()), pictures(1)
    conditions = task.conditions(2, class_labels=4, image=image, region="0,0,0.5,1", redraw=redraw)
    drawn = task.sample_scales(task.model, conditions, streams(0, 1))
    original = task.codec.tokens(task.codec.moments(image))
    columns = slice(2, 4) if redraw == "inside" else slice(0, 2)
    for side, ids, own in list(zip(PATCH_NUMS, drawn.ids, original, strict=True))[1:]:
        kept = slice(columns.start * side // 4, columns.stop * side // 4)
        assert torch.equal(
            ids.view(2, side, side)[:, :, kept], own.view(1, side, side)[:, :, kept].expand(2, -1, -1)
        )
    free = task.sample_scales(task.model, {"class_labels": conditions["class_labels"]}, streams(0, 1))
    assert not all(torch.equal(a, b) for a, b in zip(free.ids, drawn.ids, strict=True))


def test_a_vqvae_samples_reconstructions(tmp_path: Path) -> None:
    task = VQVAETask(tiny_vqvae())
    made = task.sample(task.model, task.conditions(2, image=pictures(2)), streams(0, 1))
    assert torch.equal(made, task.model.decode(task.model.encode(pictures(2))))


def test_the_codec_goes_there_and_nearly_back(tmp_path: Path) -> None:
    codec = tiny_codec(tmp_path)
    latents = codec.encode(pictures(9), streams(*range(9)))
    assert torch.equal(codec.sample_moments(codec.moments(pictures(9)), streams()), latents)
    from_tokens = codec.vqvae.decode(codec.tokens(latents))
    # nine pictures are decoded as eight and one, which rounds differently
    assert torch.allclose(codec.decode(codec.sums(latents)[-1]), from_tokens, atol=1e-5)
    codec.to("cpu", torch.bfloat16)
    assert codec.decode(latents).dtype == torch.float32
    assert torch.equal(codec.moments(pictures(9)), latents)


def plain(folder: Path, **options: Any) -> Any:
    return tiny_task(folder, tiny_var(), **options)


def controlled(folder: Path) -> Any:
    return tiny_task(folder, tiny_car())


MISTAKES: list[tuple[str, Callable[[Path], Any]]] = [
    ("needs a VQVAE", lambda f: type(plain(f))(tiny_var())),
    ("disagree about tokens", lambda f: plain(f).__class__(tiny_var(codebook_size=17), codec=tiny_codec(f))),
    ("did you mean 'top_k'", lambda f: plain(f, sampler={"topk": 3})),
    ("without 'steps'", lambda f: plain(f).sample(None or tiny_var(), {}, streams(0), steps=3)),
    ("name=ddpm", lambda f: plain(f, sampler={"name": "ddpm"})),
    ("guidance_scale is 0.5", lambda f: plain(f, sampler={"guidance_scale": 0.5})),
    ("top_p is 1.5", lambda f: plain(f, sampler={"top_p": 1.5})),
    ("the codebook has 16", lambda f: draw(plain(f, sampler={"top_k": 17}))),
    ("label_dropout", lambda f: plain(f, label_dropout=1.0)),
    ("there is no control 'cany'", lambda f: plain(f, control="cany")),
    ("this model takes none", lambda f: plain(f).conditions(1, control=pictures(1))),
    ("no extractor", lambda f: tiny_task(f, tiny_car()).conditions(1, control_from=pictures(1))),
    ("one of them", lambda f: controlled(f).conditions(1, control=pictures(1), control_from=pictures(1))),
    (r"span \[5, 5\]", lambda f: plain(f).conditions(1, class_labels=5)),
    ("2 class_labels for 3", lambda f: plain(f).conditions(3, class_labels=[1, 2])),
    ("did you mean 'class_labels'", lambda f: plain(f).conditions(1, class_label=1)),
    ("2 pictures as control for 3", lambda f: tiny_task(f, tiny_car()).conditions(3, control=pictures(2))),
    (r"\(3, 8, 8\) is expected", lambda f: controlled(f).conditions(1, control=torch.zeros(1, 1, 8, 8))),
    ("changed in a region", lambda f: plain(f).conditions(1, image=pictures(1))),
    ("region is", lambda f: plain(f).conditions(1, image=pictures(1), region="0.5,0,0.2,1")),
    ("redraw is", lambda f: plain(f).conditions(1, image=pictures(1), region="0,0,1,1", redraw="all")),
    ("no class_labels", lambda f: plain(f).prepare_batch({"pixels": pictures(1)}, streams(0))),
    ("neither pixels nor moments", lambda f: plain(f).prepare_batch({}, streams(0))),
    ("has no control", lambda f: tiny_task(f, tiny_car()).prepare_batch(labelled(), streams(0))),
    ("codes pictures of shape", lambda f: plain(f).codec.moments(torch.zeros(1, 3, 16, 16))),
    ("trains a VQVAE", lambda f: VQVAETask(tiny_var())),
    ("none were given", lambda f: VQVAETask(tiny_vqvae()).conditions(1)),
]  # fmt: skip


def labelled() -> dict[str, Tensor]:
    return {"pixels": pictures(1), "class_labels": torch.zeros(1, dtype=torch.long)}


def draw(task: Any) -> Tensor:
    return task.sample(task.model, task.conditions(1), streams(0))


@pytest.mark.parametrize(("message", "mistake"), MISTAKES, ids=[message for message, _ in MISTAKES])
def test_mistakes_are_named(message: str, mistake: Callable[[Path], Any], tmp_path: Path) -> None:
    with pytest.raises((UsageError, ShapeError, DataError), match=message) as caught:
        mistake(tmp_path)
    assert isinstance(caught.value, GenzooError)


def test_an_unreadable_control_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "edges.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(DataError, match=r"edges\.png"):
        tiny_task(tmp_path, tiny_car()).conditions(1, control=str(broken))


def test_exported_weights_hold_the_released_keys(tmp_path: Path) -> None:
    path = saved(tiny_var(), tmp_path / "var.safetensors")
    assert set(load_file(path)) == set(tiny_var().state_dict())
