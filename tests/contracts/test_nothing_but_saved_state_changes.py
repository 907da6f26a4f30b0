"""A step changes what checkpoints hold and nothing else, so that a resumed run is the same run, bit for bit.

Every task with every model that it takes, with the optimizer and the averages around it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from contract_cases import Case
from smallest import pairs
from state_of import held
from torch import nn

from genzoo.core.checkpoint import Checkpoint, checkpoint_steps, load_checkpoint
from genzoo.core.counts import Count, counts_of, restore_counts
from genzoo.core.run_folder import read_metrics
from genzoo.training.config import TrainConfig
from genzoo.training.hook import Hook, StepRecord
from genzoo.training.trainer import Trainer

Cases = Callable[[str, str], Case]
PAIRS = [pytest.param(task, model, id=f"{task}-{model}") for task, model in pairs()]
every_pair = pytest.mark.parametrize(("task", "model"), PAIRS)
STEPS, STOP = 4, 2
# counts from which a model goes on: the stop is at the end of a warm-up of 10, 100, ..., or past all
LATER = (8, 98, 998, 10**6)
# a function of the step alone, set before each
OF_THE_STEP = ("lr", "weight_decay")
# answers that are remembered: the same whoever asks, and asked again after a resume
REMEMBERED = ("task._moments._known",)
# in the checkpoint's state, beside the averages themselves
IN_STATE = ["average.updates"]


def trainer(case: Case, output: Path, *hooks: Hook) -> Trainer:
    config = TrainConfig(
        steps=STEPS, batch_size=2, checkpoint_every=STOP, log_every=1, tensorboard=False,
        ema_decay=0.9, ema_profiles=(0.1, 0.2), keep_last=9,
    )  # fmt: skip
    optim = {"name": "adamw", "lr": 1e-3}
    return Trainer(case.task, case.dataset, config, optim=optim, output=output, hooks=hooks)


class Snapshots(Hook):
    """What a trainer's parts hold after each step, but for what is saved."""

    def __init__(self) -> None:
        self.after: dict[int, dict[str, Any]] = {}

    def on_step(self, trainer: Any, record: StepRecord) -> None:
        parts = trainer.parts
        saved = {tensor.data_ptr() for tensor in saved_tensors(trainer)}
        found: dict[str, Any] = {}
        for name in ("task", "optimization", "average", "profiles"):
            found |= held(getattr(parts, name), name, saved=saved)
        self.after[record.step] = {
            path: value
            for path, value in found.items()
            if path.rpartition(".")[2] not in OF_THE_STEP and not path.startswith(REMEMBERED)
        }


def saved_tensors(trainer: Any) -> list[torch.Tensor]:
    """Tensors that `training.state.capture` writes, as they lie in memory."""
    parts = trainer.parts
    state = [
        slot
        for slots in parts.optimization.optimizer.state.values()
        for slot in slots.values()
        if isinstance(slot, torch.Tensor)
    ]
    averages = [tensor for part in (parts.average, parts.profiles) for tensor in _tensors(part)]
    counts = [module.value for module in parts.model.modules() if isinstance(module, Count)]
    return [*parts.model.state_dict().values(), *parts.parameters.values(), *state, *averages, *counts]


def _tensors(part: Any) -> list[torch.Tensor]:
    return [] if part is None else list(part.tensors().values())


def changed(hook: Snapshots) -> list[str]:
    first, last = hook.after[1], hook.after[STEPS]
    return sorted(path for path in {*first, *last} if first.get(path) != last.get(path))


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(folder / "metrics.jsonl") if "loss" in row]


@every_pair
def test_a_step_changes_what_is_saved_and_a_stop_changes_nothing(
    build: Cases, tmp_path: Path, task: str, model: str
) -> None:
    whole, cut, hook = tmp_path / "whole", tmp_path / "cut", Snapshots()
    trainer(build(task, model), whole, hook).fit()
    assert changed(hook) == IN_STATE
    trainer(build(task, model), cut).fit(until=STOP)
    assert trainer(build(task, model), cut).fit().resumed_from == STOP
    assert losses(cut) == losses(whole)
    require_same(last(whole), last(cut))
    assert last(whole).state["ema"]


def require_same(one: Checkpoint, other: Checkpoint) -> None:
    for part in ("weights", "ema", "optimizer"):
        ours, theirs = getattr(one, part), getattr(other, part)
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == [], part
    assert one.state == other.state


def resumed(build: Cases, folder: Path, task: str, model: str, start: int) -> Checkpoint:
    """The last checkpoint of a run that was stopped at every second step; counts begin at `start`."""
    for number in range(STEPS // STOP):
        case = build(task, model)
        if number == 0:
            restore_counts(case.task.model, dict.fromkeys(counts_of(case.task.model), start))
        trainer(case, folder).fit(until=(number + 1) * STOP)
    return last(folder)


def last(folder: Path) -> Checkpoint:
    return load_checkpoint(checkpoint_steps(folder / "checkpoints")[STEPS])


def test_past_every_warm_up_inside_a_model_the_same_holds(build: Cases, case: Cases, tmp_path: Path) -> None:
    """What a model does differently later depends on its counts: the test above sees all other state."""
    warming = [pair for pair in pairs() if counts_of(case(*pair).task.model)]
    assert ("vqvae", "vqvae") in warming
    for task, model in warming:
        for start in LATER:
            made, hook = build(task, model), Snapshots()
            restore_counts(made.task.model, dict.fromkeys(counts_of(made.task.model), start))
            folder = tmp_path / f"{model}-{start}"
            trainer(made, folder / "whole", hook).fit()
            assert changed(hook) == IN_STATE
            whole, cut = last(folder / "whole"), resumed(build, folder / "cut", task, model, start)
            assert set(whole.state["counts"].values()) == {start + STEPS}
            require_same(whole, cut)


class Forgetful(nn.Module):
    """Counts in Python, draws from a generator of its own, and keeps a tensor that no checkpoint holds."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 3)
        self.updates, self.seen = 0, [1]
        self.generator = torch.Generator().manual_seed(0)
        self.register_buffer("usage", torch.zeros(2), persistent=False)

    def step(self) -> None:
        self.updates += 1
        self.seen.append(self.updates)
        torch.rand(1, generator=self.generator)
        self.usage += 1
        self.linear.weight.data += 1


def test_the_comparison_sees_every_kind_of_state() -> None:
    module = Forgetful()
    saved = {tensor.data_ptr() for tensor in module.state_dict().values()}
    before = held(module, "m", saved=saved)
    module.step()
    after = held(module, "m", saved=saved)
    differing = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
    assert differing == ["m._buffers.usage", "m.generator", "m.seen.#", "m.seen.1", "m.updates"]
