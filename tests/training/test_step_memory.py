"""The memory that a dry run foretells is what a step takes, byte by byte."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from step_memory_truth import foretold, taken
from torch import Tensor, nn
from toys import ToyTask, toy_task, toy_trainer

from genzoo.core.types import LossOutput
from genzoo.training.allocations import AllocationCounter, Point
from genzoo.training.dry_run import Step, with_samples
from genzoo.training.gpus_needed import Needed, Shards, between, gpus_needed
from genzoo.training.step_memory import StepCount, StepMemory
from genzoo.training.trainer import Trainer


class Quiet(ToyTask):
    """A task whose loss asks for no values."""

    def loss(self, model: nn.Module, batch: Any, generator: Any) -> LossOutput:
        return LossOutput((model(batch["x"] + batch["noise"]) - batch["noise"]).square().mean())


def quiet(**options: Any) -> Quiet:
    return Quiet(toy_task(**options).model)


@pytest.mark.parametrize("micro_batch_size", [None, 3])
@pytest.mark.parametrize("ema_decay", [None, 0.9])
@pytest.mark.parametrize("optim", ["adamw", "sgd"])
def test_what_is_foretold_is_what_a_step_takes(
    tmp_path: Path, micro_batch_size: int | None, ema_decay: float | None, optim: str
) -> None:
    options = {"name": optim, "lr": 1e-3} | ({"momentum": 0.0} if optim == "sgd" else {})
    trainer = toy_trainer(
        tmp_path,
        task=quiet(hidden=400),
        micro_batch_size=micro_batch_size,
        ema_decay=ema_decay,
        optim=options,
    )
    memory = foretold(trainer)
    assert memory.total == pytest.approx(taken(trainer), rel=0.02)


class Encoding(Quiet):
    """A task whose batches take more while they are encoded than in the step."""

    def prepare_batch(self, batch: Any, generator: Any) -> Any:
        torch.zeros(4 * sum(one.numel() for one in self.model.parameters())).sum()
        return super().prepare_batch(batch, generator)


def test_gradients_of_earlier_micro_batches_are_there_while_the_next_is_encoded(tmp_path: Path) -> None:
    for micro_batch_size, share in ((3, 1), (None, 0)):
        task, output = Encoding(toy_task(hidden=400).model), tmp_path / str(micro_batch_size)
        trainer = toy_trainer(output, task=task, micro_batch_size=micro_batch_size)
        memory = foretold(trainer)
        assert memory.phase == "while the batch is encoded"
        assert memory.gradients == share * sum(one.nbytes for one in trainer.parts.parameters.values())
        assert memory.total == pytest.approx(taken(trainer), rel=0.02)


def test_storages_are_counted_once_and_until_they_are_freed() -> None:
    with AllocationCounter() as counter:
        a = torch.zeros(1000)
        view = a[10:].view(9, -1)
        b = a + 1
        assert counter.live == 8000
        del a
        assert counter.live == 8000  # the view holds it
        del view, b
    assert (counter.live, counter.peak) == (0, 8000)


def test_room_that_is_given_back_and_taken_again_is_counted() -> None:
    with AllocationCounter() as counter:
        gathered = torch.zeros(1000)
        gathered.untyped_storage().resize_(0)
        assert counter.live == 0
        gathered.untyped_storage().resize_(4000)
        assert counter.live == 4000
    assert torch.UntypedStorage.resize_ is AllocationCounter()._resize


def test_a_loss_that_asks_for_values_is_counted_in_a_pass(tmp_path: Path) -> None:
    real = toy_trainer(tmp_path, task=toy_task()).dry_run()  # notes the positions that it sees
    fake = toy_trainer(tmp_path, task=quiet()).dry_run()
    assert real.memory is not None
    assert fake.memory is not None
    assert (real.memory.how, fake.memory.how) == ("in a pass", "on fake tensors")
    assert real.loss == fake.loss
    assert real.memory.total == pytest.approx(fake.memory.total, rel=0.1)
    assert real.gpus == []


def test_what_a_task_remembers_has_values_afterwards(tmp_path: Path) -> None:
    class Remembering(Quiet):
        def __init__(self, model: nn.Module) -> None:
            super().__init__(model)
            self.made: dict[str, Tensor] = {}

        @cached_property
        def table(self) -> Tensor:
            return torch.arange(6.0)

        def loss(self, model: nn.Module, batch: Any, generator: Any) -> LossOutput:
            scale = self.made.setdefault("scale", torch.ones(6))
            return LossOutput((model(batch["x"]) - scale * self.table).square().mean())

    task = Remembering(toy_task().model)
    found = toy_trainer(tmp_path, task=task).dry_run()
    assert found.memory is not None
    assert found.memory.how == "on fake tensors"
    assert found.loss is not None
    assert task.table.tolist() == [0, 1, 2, 3, 4, 5]
    assert task.made["scale"].tolist() == [1] * 6


def test_nothing_is_computed_where_the_memory_will_not_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genzoo.training.summary._free_memory", lambda device: 100)
    monkeypatch.setattr(Step, "run", lambda self: pytest.fail("it was computed"))
    found = toy_trainer(tmp_path, task=quiet()).dry_run()
    assert (found.loss, found.step_seconds) == (None, None)
    text = str(found)
    assert "loss        not computed" in text
    assert "warning: the memory may not do" in text
    assert "looked at" in text


def test_every_part_has_a_line(tmp_path: Path) -> None:
    lines = str(toy_trainer(tmp_path, task=quiet(hidden=400)).dry_run()).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("memory "))
    parts = [line.split()[0] for line in lines[start + 1 :] if line.startswith("  ")]
    assert parts == ["weights", "gradients", "optimizer", "averages", "activations"]
    assert any(line.startswith("GPUs        12 GB: 1 (DDP), 1 (sharded); 24 GB: 1") for line in lines)


def count_of(samples: int, each: int, trainable: int = 0) -> StepCount:
    points = [Point(0, each * samples), Point(trainable, 0)]
    return StepCount(samples, trainable, 2 * trainable, trainable, 0, points, 0, "on fake tensors")


class Repeating(Quiet):
    """Three rows of a sample, and a table that all share, as long as the batch by chance."""

    def prepare_batch(self, batch: Any, generator: Any) -> Any:
        prepared = super().prepare_batch(batch, generator)
        rows = {key: torch.cat([prepared[key]] * 3) for key in ("x", "noise")}
        return {**prepared, **rows, "table": torch.zeros(12, 5000)}

    def loss(self, model: nn.Module, batch: Any, generator: Any) -> LossOutput:
        assert len(batch["table"]) == 12
        return super().loss(model, {**batch, "x": batch["x"] + batch["table"].mean()}, generator)


@pytest.mark.parametrize("kind", [Quiet, Repeating], ids=["one-row", "three-rows"])
def test_other_numbers_of_samples_lie_on_the_line_through_two(tmp_path: Path, kind: type[Quiet]) -> None:
    trainer = toy_trainer(tmp_path, task=kind(toy_task(hidden=400).model), batch_size=12)
    batch = next(trainer._batches())[0]

    def count(samples: int) -> StepCount:
        counted = Step(trainer.parts, with_samples(batch, trainer.stream, samples)).count_fake()
        assert counted is not None
        return counted

    line, direct = between(count(12), count(2), 40), count(40)
    assert line.largest()[1].others == pytest.approx(direct.largest()[1].others, rel=0.02)
    assert line.trainable == direct.trainable
    assert (direct.samples, line.preparing) == (40, pytest.approx(direct.preparing, rel=0.02))


def test_a_task_that_makes_several_rows_of_a_sample_is_told_its_gpus(tmp_path: Path) -> None:
    assert toy_trainer(tmp_path, task=Repeating(toy_task().model), batch_size=12).dry_run().gpus


def needs(trainer: Trainer, count: StepCount, second: StepCount, shards: Shards | None) -> list[Needed]:
    memory = StepMemory(count.trainable, 0, 0, count.optimizer, count.averages, 0, 0, "", "on fake tensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("genzoo.training.gpus_needed.shards_of", lambda parts: shards)
        return gpus_needed(trainer.parts, memory, count, second)


def test_gpus_are_as_many_as_the_batch_needs(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, batch_size=16)
    G = 10**9
    # 5 GB a sample, 80 in all, beside small weights
    found = needs(trainer, count_of(16, 5 * G, 1000), count_of(8, 5 * G, 1000), None)
    first, *others = found
    assert first == Needed(12, 8, None)
    assert others == [Needed(24, 4, None), Needed(40, 4, None), Needed(80, 2, None), Needed(141, 1, 1)]


def test_sharding_holds_models_that_no_gpu_does(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, batch_size=16)
    G = 10**9
    # weights, gradients, averages and two slots of 10 GB each; 0.01 GB a sample
    count = count_of(16, G // 100, 10 * G), count_of(8, G // 100, 10 * G)
    found = needs(trainer, *count, Shards(root=G // 10, block=G // 10))
    first, *others = found
    assert first == Needed(12, None, 8)
    assert others == [Needed(24, None, 4), Needed(40, None, 2), Needed(80, 1, 1), Needed(141, 1, 1)]
