"""The loop itself: what it optimises, what it reports, what it refuses."""

from __future__ import annotations

import gc
import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import Poison
from compare import final, fingerprint
from rich.console import Console
from torch import Tensor, nn
from toys import ToyDataset, ToyModel, ToyTask, toy_task, toy_trainer

from genzoo.core.checkpoint import checkpoint_steps
from genzoo.core.errors import DataError, NonFiniteError, OutOfMemoryError, UsageError
from genzoo.core.model_state import restore_weights
from genzoo.core.run_folder import RunFolder, read_metrics
from genzoo.training.hook import Hook, StepRecord
from genzoo.training.hooks import PreviewHook, ProgressHook
from genzoo.training.trainer import Trainer

# the toy at seed 0, torch 2.15, x86-64; a refactor keeps these, a change of numerics is told in the changelog
GOLDEN_LOSSES = [1.58034, 1.36161, 1.05716, 1.02143, 1.33655, 0.61568, 0.66068, 0.78675, 0.86801, 1.20047]


def losses(output: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(output / "metrics.jsonl")]


def test_the_golden_loss_curve(tmp_path: Path) -> None:
    toy_trainer(tmp_path).fit()
    assert losses(tmp_path)[:10] == pytest.approx(GOLDEN_LOSSES, abs=2e-5)


def test_the_loss_falls(tmp_path: Path) -> None:
    optim = {"name": "adamw", "lr": 3e-2}
    toy_trainer(
        tmp_path, steps=150, batch_size=16, checkpoint_every=999, optim=optim, dataset=ToyDataset(4)
    ).fit()
    curve = losses(tmp_path)
    assert sum(curve[-20:]) < 0.8 * sum(curve[:20])


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        toy_trainer(tmp_path / name, seed=seed).fit()
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")
    assert losses(tmp_path / "a") != losses(tmp_path / "c")


def test_nothing_depends_on_the_global_generator(tmp_path: Path) -> None:
    class Disturb(Hook):
        def on_step(self, trainer: Trainer, record: StepRecord) -> None:
            torch.rand(record.step)

    toy_trainer(tmp_path / "quiet").fit()
    toy_trainer(tmp_path / "disturbed", hooks=(Disturb(),)).fit()
    assert fingerprint(tmp_path / "quiet") == fingerprint(tmp_path / "disturbed")


def test_float64_accumulation_gives_the_update_of_one_batch(tmp_path: Path) -> None:
    for name, micro in (("whole", 12), ("cut", 3)):
        task = toy_task(dropout=0.0)
        config = {"batch_size": 12, "micro_batch_size": micro, "precision": "fp64"}
        toy_trainer(tmp_path / name, task=task, steps=5, **config).fit()
    whole, cut = final(tmp_path / "whole"), final(tmp_path / "cut")
    for name, weight in whole.weights.items():
        torch.testing.assert_close(cut.weights[name], weight, rtol=0, atol=1e-12)


def test_one_step_is_the_textbook_update(tmp_path: Path) -> None:
    task = toy_task(dropout=0.0)
    before = task.model.last.bias.detach().clone()
    gradients = {}

    class Keep(Hook):
        def on_step(self, trainer: Trainer, record: StepRecord) -> None:
            gradients["last.bias"] = trainer.parameters["last.bias"].grad.clone()
            gradients["norm"] = record.grad_norm

    config = {"steps": 1, "clip_grad_norm": 0.01, "ema_decay": None}
    toy_trainer(
        tmp_path, task=task, optim={"name": "sgd", "lr": 0.5, "momentum": 0.0}, hooks=(Keep(),), **config
    ).fit()
    assert gradients["norm"] > 0.01  # reported before clipping
    torch.testing.assert_close(task.model.last.bias.detach(), before - 0.5 * gradients["last.bias"])
    norm = torch.stack([p.grad.norm() for p in task.model.parameters()]).norm()
    assert float(norm) == pytest.approx(0.01, rel=1e-3)


def test_clipping_that_begins_later_leaves_the_steps_before_it_alone(tmp_path: Path) -> None:
    def weights(name: str, **config: Any) -> Tensor:
        task = toy_task(dropout=0.0)
        trainer = toy_trainer(tmp_path / name, task=task, ema_decay=None, optim={"name": "sgd"}, **config)
        trainer.fit()
        return task.model.last.bias.detach().clone()

    free, late = {"clip_grad_norm": None}, {"clip_grad_norm": 1e-3, "clip_after": 2}
    assert torch.equal(weights("free2", steps=2, **free), weights("late2", steps=2, **late))
    assert not torch.equal(weights("free3", steps=3, **free), weights("late3", steps=3, **late))


def test_bf16_keeps_float32_weights_and_gives_finite_losses(tmp_path: Path) -> None:
    toy_trainer(tmp_path / "bf16", precision="bf16").fit()
    toy_trainer(tmp_path / "fp32").fit()
    assert final(tmp_path / "bf16").weights["first.weight"].dtype == torch.float32
    assert losses(tmp_path / "bf16") != losses(tmp_path / "fp32")
    assert losses(tmp_path / "bf16") == pytest.approx(losses(tmp_path / "fp32"), rel=0.05)


def test_fp16_on_a_cpu_is_refused(tmp_path: Path) -> None:
    if torch.accelerator.is_available():
        pytest.skip("needs a machine without accelerator")
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        toy_trainer(tmp_path, precision="fp16")


def test_a_task_without_trainable_parameters_is_refused(tmp_path: Path) -> None:
    task = toy_task()
    task.model.requires_grad_(False)
    with pytest.raises(UsageError, match="nothing to train"):
        toy_trainer(tmp_path, task=task)


@pytest.mark.parametrize("position", [0, 14, 30])
def test_a_bad_sample_stops_before_the_update_and_names_the_module(tmp_path: Path, position: int) -> None:
    task = Poison(toy_task(), position)
    with pytest.raises(NonFiniteError) as caught:
        toy_trainer(tmp_path, task=task, checkpoint_every=1, micro_batch_size=2).fit()
    step = position // 6
    message = str(caught.value)
    assert f"before the update of step {step + 1}: the output of module 'first'" in message
    assert f"positions {position // 2 * 2}, {position // 2 * 2 + 1}" in message
    assert next(iter(checkpoint_steps(tmp_path / "checkpoints")), 0) == step
    assert all(torch.isfinite(weight).all() for weight in task.model.state_dict().values())
    status = RunFolder(tmp_path).status()
    assert (status["state"], status["step"]) == ("failed", step)


class BadGradient(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * float("inf")


class BadGradientModel(ToyModel):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(BadGradient.apply(self.first.weight).sum() * 0 + x)


def test_a_bad_gradient_under_a_good_loss_names_the_parameter(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"the gradient of 'first\.weight', though not the loss, is not"):
        toy_trainer(tmp_path, task=ToyTask(BadGradientModel())).fit()


def test_a_bad_weight_is_named_first(tmp_path: Path) -> None:
    task = toy_task()
    task.model.last.bias.data[2] = float("nan")
    with pytest.raises(NonFiniteError, match=r"the weight 'last\.bias' is not finite"):
        toy_trainer(tmp_path, task=task).fit()


def test_running_out_of_memory_gives_smaller_batches(tmp_path: Path) -> None:
    class Greedy(ToyTask):
        def loss(self, *args: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    trainer = toy_trainer(tmp_path, task=Greedy(ToyModel()), batch_size=12)
    with pytest.raises(OutOfMemoryError, match=r"(?s)12 samples per device.*micro_batch_size=6 or .*=4 or"):
        trainer.fit()
    with pytest.raises(OutOfMemoryError):
        trainer.dry_run()


def test_other_runtime_errors_pass_unchanged(tmp_path: Path) -> None:
    class Broken(ToyTask):
        def loss(self, *args: Any) -> Any:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        toy_trainer(tmp_path, task=Broken(ToyModel())).fit()
    assert RunFolder(tmp_path).status()["reason"] == "RuntimeError: mat1 and mat2 shapes cannot be multiplied"


def test_unreadable_items_are_replaced_up_to_the_limit_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    toy_trainer(tmp_path / "some", dataset=ToyDataset(bad=(3, 11)), max_bad=2).fit()
    assert final(tmp_path / "some").step == 12
    assert caplog.text.count("item3.png") == 1
    assert len(RunFolder(tmp_path / "some").status()["unreadable"]) == 2
    with pytest.raises(DataError, match="at most max_bad=1"):
        toy_trainer(tmp_path / "many", dataset=ToyDataset(bad=(3, 11)), max_bad=1).fit()


def test_a_dry_run_reports_and_leaves_nothing_behind(tmp_path: Path) -> None:
    task = toy_task(frozen_base=True, dropout=0.0)
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    trainer = toy_trainer(tmp_path / "run", task=task, micro_batch_size=3)
    report = trainer.dry_run().as_dict()
    trainable = (9 * 9 + 9) + (9 * 6 + 6) + 6
    assert report["trainable"] == trainable
    assert report["parameters"] == trainable + 6 * 9 + 9
    memory = report["memory"]
    assert memory["averages"] == 4 * trainable
    assert 8 * trainable <= memory["optimizer"] <= 8 * trainable + 64  # and the numbers of its steps
    assert memory["weights"] == 4 * (report["parameters"] + 6)  # and a buffer
    assert report["batch"] == "global batch 6 = 3 per device x 2 accumulation x 1 processes"
    # autograd keeps at least the input of each of the three linear layers
    assert memory["gradients"] + memory["activations"] >= 4 * 3 * (9 + 9)
    assert report["memory_bytes"] == sum(size for size in memory.values() if isinstance(size, int))
    assert report["loss"] > 0
    json.dumps(report)
    assert not (tmp_path / "run").exists()
    assert all(tensor.equal(before[name]) for name, tensor in task.model.state_dict().items())
    assert all(parameter.grad is None for parameter in task.model.parameters())


@pytest.mark.parametrize("lengths", [(), (0.05, 0.1, 0.2)], ids=["no profiles", "three profiles"])
def test_the_size_of_a_checkpoint_is_foretold(tmp_path: Path, lengths: tuple[float, ...]) -> None:
    trainer = toy_trainer(tmp_path, task=toy_task(hidden=300), ema_profiles=lengths)
    foretold = trainer.dry_run().checkpoint_bytes
    trainer.fit()
    folder = next(iter(checkpoint_steps(tmp_path / "checkpoints").values()))
    assert sum(file.stat().st_size for file in folder.iterdir()) == pytest.approx(foretold, rel=0.1)


def test_training_after_a_dry_run_is_the_same(tmp_path: Path) -> None:
    toy_trainer(tmp_path / "a").fit()
    trainer = toy_trainer(tmp_path / "b")
    trainer.dry_run()
    trainer.fit()
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")


def test_the_first_log_lines_say_what_is_trained(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        toy_trainer(tmp_path).fit()
    lines = [record.message for record in caplog.records][:8]
    words = ["model", "parameters", "data", "batch", "steps", "precision", "backend", "output"]
    assert [line.split()[0] for line in lines] == words


def test_the_run_folder_tells_how_the_run_went(tmp_path: Path) -> None:
    toy_trainer(tmp_path, tensorboard=True).fit()
    names = {path.name for path in tmp_path.iterdir()}
    assert {"command.txt", "env.json", "metrics.jsonl", "status.json", "tensorboard", "checkpoints"} <= names
    assert RunFolder(tmp_path).status()["state"] == "finished"
    assert [line["learning_rate"] for line in read_metrics(tmp_path / "metrics.jsonl")][:3] == [
        0.0,
        5e-3,
        1e-2,
    ]
    assert any((tmp_path / "tensorboard").iterdir())


def test_only_some_steps_are_logged(tmp_path: Path) -> None:
    toy_trainer(tmp_path, log_every=5).fit()
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 5, 10, 12]
    assert all("rmse" in line for line in read_metrics(tmp_path / "metrics.jsonl"))


def test_a_step_is_logged_before_it_is_saved(tmp_path: Path) -> None:
    # a run that is killed right after the save goes on with the next step, and would never log this one
    logged = []

    class Look(Hook):
        def on_checkpoint(self, trainer: Trainer, path: Path) -> None:
            logged.append(read_metrics(tmp_path / "metrics.jsonl")[-1]["step"])

    toy_trainer(tmp_path, hooks=(Look(),)).fit()
    assert logged == [4, 8, 12]


def test_previews_see_the_average_in_evaluation_mode_and_change_nothing(tmp_path: Path) -> None:
    seen = []

    def preview(trainer: Trainer, step: int) -> None:
        assert not trainer.model.training
        averages = trainer.average.tensors()
        assert all(trainer.parameters[name].equal(averages[name]) for name in averages)
        seen.append(step)

    toy_trainer(tmp_path / "plain").fit()
    trainer = toy_trainer(tmp_path / "preview", hooks=(PreviewHook(preview, every=5),))
    trainer.fit()
    assert seen == [5, 10]
    assert trainer.model.training
    assert fingerprint(tmp_path / "plain") == fingerprint(tmp_path / "preview")


def test_without_an_average_previews_see_the_weights(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, ema_decay=None)
    with trainer.averaged_model() as model:
        assert model is trainer.model


def test_a_checkpoint_restores_a_model_for_sampling(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path)
    trainer.fit()
    stored = final(tmp_path)
    model = ToyModel()
    restore_weights(model, stored.averaged(), frozen=stored.state["frozen"], where="here")
    expected = trainer.average.tensors()
    assert all(parameter.equal(expected[name]) for name, parameter in model.named_parameters())


def test_a_terminal_shows_a_bar_and_a_file_shows_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for terminal in (True, False):
        with (tmp_path / f"{terminal}.txt").open("w") as file:
            console = Console(file=file, force_terminal=terminal, width=120)
            trainer = toy_trainer(tmp_path / str(terminal))
            trainer.recorders = (ProgressHook(console, line_seconds=0.0),)
            with caplog.at_level(logging.INFO):
                trainer.fit()
    assert "12/12" in (tmp_path / "True.txt").read_text()
    assert "samples/s" in (tmp_path / "True.txt").read_text()
    assert (tmp_path / "False.txt").read_text() == ""
    assert "step 7/12  loss 0.6607" in caplog.text


def test_many_steps_and_saves_leak_no_files_and_no_threads(tmp_path: Path) -> None:
    counts = []

    class Count(Hook):
        def on_step(self, trainer: Trainer, record: StepRecord) -> None:
            if record.step in (50, 500):
                gc.collect()
                counts.append((len(os.listdir("/proc/self/fd")), threading.active_count()))

    toy_trainer(tmp_path, steps=500, checkpoint_every=10, log_every=50, hooks=(Count(),)).fit()
    assert counts[0] == counts[1]
    assert len(checkpoint_steps(tmp_path / "checkpoints")) == 3


def test_two_trainers_of_different_precision_live_in_one_process(tmp_path: Path) -> None:
    for precision in ("bf16", "fp32", "fp64"):
        toy_trainer(tmp_path / precision, precision=precision, steps=2).fit()
    assert losses(tmp_path / "fp32") != losses(tmp_path / "fp64")


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


def test_tied_weights_survive_a_resume(tmp_path: Path) -> None:
    toy_trainer(tmp_path / "cut", task=ToyTask(tied()), steps=4, optim=constant()).fit()
    toy_trainer(tmp_path / "cut", task=ToyTask(tied()), steps=8, optim=constant()).fit()
    toy_trainer(tmp_path / "straight", task=ToyTask(tied()), steps=8, optim=constant()).fit()
    assert fingerprint(tmp_path / "cut") == fingerprint(tmp_path / "straight")


def tied() -> Tied:
    torch.manual_seed(5)
    return Tied()


def constant() -> dict[str, Any]:
    return {"name": "adamw", "lr": 1e-2}
