"""What forked processes run; each function takes plain values and leaves its results in files."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import resource
import signal
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from toys import ToyDataset, ToyTask, toy_task, toy_trainer

import genzoo.training.saving as saving_module
from genzoo.api.recipes.build import build_dataset
from genzoo.api.recipes.plan import plan_of
from genzoo.core.checkpoint import checkpoint_steps
from genzoo.core.checkpoint_saving import save_checkpoint
from genzoo.core.errors import DataError
from genzoo.core.model_state import restore_weights, stored_weights, trainable_parameters
from genzoo.core.processes import World, connected
from genzoo.core.recipe import recipe_from
from genzoo.core.run_folder import RunFolder
from genzoo.core.sharded import own_part
from genzoo.core.stored_tensors import open_checkpoint
from genzoo.core.tensor_rows import FilesInRows
from genzoo.data.image_folder import ImageFolder
from genzoo.training.config import TrainConfig
from genzoo.training.devices import build_accelerator, clip_gradients, gradient_norm
from genzoo.training.ema import ParameterAverage
from genzoo.training.hook import Hook, StepRecord
from genzoo.training.optim import build_optimizer, load_optimizer_tensors, optimizer_tensors
from genzoo.training.profiles import PowerAverages, split_slots
from genzoo.training.saving import Saver
from genzoo.training.trainer import Trainer

MUON_RATE = 0.1

logging.basicConfig(level=logging.INFO)


def train(output: str, *, model: dict[str, Any] | None = None, resume: str = "auto", **config: Any) -> None:
    """Train the toy; each process writes the positions it saw to seen_<rank>.json."""
    task = toy_task(**(model or {}))
    try:
        toy_trainer(Path(output), task=task, **config).fit(resume)
    finally:
        _write_seen(Path(output), task)


def train_with_events(
    output: str, events: str, *, model: dict[str, Any] | None = None, **config: Any
) -> None:
    """Train the toy and write a byte a event to a FIFO: t after a step, s before and e after a save."""
    pipe = os.open(events, os.O_WRONLY)
    save = saving_module.write_checkpoint

    def announced(*args: Any, **kwargs: Any) -> Path:
        os.write(pipe, b"s")
        path = save(*args, **kwargs)
        os.write(pipe, b"e")
        return path

    class Tick(Hook):
        def on_step(self, trainer: Trainer, record: StepRecord) -> None:
            os.write(pipe, b"t")

    saving_module.write_checkpoint = announced
    toy_trainer(Path(output), task=toy_task(**(model or {})), hooks=(Tick(),), **config).fit()


class RaiseSignal(Hook):
    """Send signals to this process at a step: during it, or (in_save) while its checkpoint is written."""

    def __init__(self, at: int, signals: list[int], rank: int = 0) -> None:
        self.at, self.signals, self.rank = at, signals, rank

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        if record.step == self.at and trainer.accelerator.process_index == self.rank:
            for signum in self.signals:
                os.kill(os.getpid(), signum)


def train_and_signal(output: str, *, at: int, signals: list[int], rank: int = 0, **config: Any) -> None:
    """Train the toy; the given rank signals itself after a step."""
    toy_trainer(Path(output), hooks=(RaiseSignal(at, signals, rank),), **config).fit()


def train_and_signal_in_save(output: str, *, signum: int, **config: Any) -> None:
    """Train the toy; a signal arrives in the middle of the first save."""
    save = saving_module.write_checkpoint

    def interrupted(*args: Any, **kwargs: Any) -> Path:
        if args[1] == config["checkpoint_every"]:
            os.kill(os.getpid(), signum)
        return save(*args, **kwargs)

    saving_module.write_checkpoint = interrupted
    toy_trainer(Path(output), **config).fit()


def train_with_file_limit(output: str, *, limit: int, model: dict[str, Any], **config: Any) -> None:
    """Train the toy where no file may grow beyond `limit` bytes."""
    trainer = toy_trainer(Path(output), task=toy_task(**model), **config)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    trainer.fit()


def train_and_signal_family(output: str, *, signum: int, **config: Any) -> None:
    """Train the toy; after step 4 the loader workers get a signal, and then this process."""

    class Family(Hook):
        def on_step(self, trainer: Trainer, record: StepRecord) -> None:
            if record.step == 4:
                for child in multiprocessing.active_children():
                    os.kill(child.pid, signum)
                os.kill(os.getpid(), signum)

    toy_trainer(Path(output), hooks=(Family(),), **config).fit()


class Poison(ToyTask):
    """A task whose loss is not finite on one rank at one step."""

    def __init__(self, task: ToyTask, position: int) -> None:
        super().__init__(task.model)
        self.position = position

    def loss(self, model: torch.nn.Module, batch: Any, generator: Any) -> Any:
        if self.position in batch["position"].tolist():
            batch = dict(batch) | {"x": batch["x"] * float("nan")}
        return super().loss(model, batch, generator)


def train_poisoned(output: str, *, position: int, **config: Any) -> None:
    """Train the toy; the sample at one position is not a number."""
    toy_trainer(Path(output), task=Poison(toy_task(), position), **config).fit()


class Vanish(Hook):
    """One rank is killed after a step."""

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        if record.step == 3 and trainer.accelerator.process_index == 1:
            os.kill(os.getpid(), signal.SIGKILL)


class Broken(ToyTask):
    """A task whose forward pass raises in one process, at its fourth step."""

    def __init__(self, task: ToyTask, rank: int, error: Exception) -> None:
        super().__init__(task.model)
        self.rank, self.error = rank, error

    def loss(self, model: torch.nn.Module, batch: Any, generator: Any) -> Any:
        output = super().loss(model, batch, generator)
        if len(self.seen) == 4 and os.environ["RANK"] == str(self.rank):
            raise self.error
        return output


ERRORS: dict[str, Exception] = {
    "data": DataError(
        "a latent is not what it was", where="shard-3", why="its hash differs", fix="make it anew"
    ),
    "bug": RuntimeError("mat1 and mat2 do not fit"),
    "memory": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
}


def train_broken(output: str, *, rank: int, error: str, **config: Any) -> None:
    """Train the toy; the forward pass raises in one process."""
    toy_trainer(Path(output), task=Broken(toy_task(), rank, ERRORS[error]), **config).fit()


class Stop(Hook):
    """One process stops answering after a step."""

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        if record.step == 3 and trainer.accelerator.process_index == 1:
            os.kill(os.getpid(), signal.SIGSTOP)


def train_and_stop_rank(output: str, **config: Any) -> None:
    """Train the toy; process 1 is stopped after the third step."""
    toy_trainer(Path(output), hooks=(Stop(),), **config).fit()


def train_recipe_and_signal(
    output: str, *, recipe: dict[str, Any], state: str, rank: int, signum: int
) -> None:
    """Train a recipe; one process gets a signal when it enters a state for the first time."""
    from genzoo.api.training.evaluation_hook import EvaluationHook
    from genzoo.training.hooks import PreviewHook

    places: dict[str, tuple[Any, str]] = {
        "preview": (PreviewHook, "on_step"),
        "evaluation": (EvaluationHook, "_judge"),
        "save": (Saver, "save"),
    }
    owner, name = places[state]
    function, sent = getattr(owner, name), []

    def disturbed(*args: Any, **kwargs: Any) -> Any:
        if os.environ["RANK"] == str(rank) and not sent:
            sent.append(True)
            os.kill(os.getpid(), signum)
        return function(*args, **kwargs)

    setattr(owner, name, disturbed)
    train_recipe(output, recipe)


def train_and_lose_rank(output: str, **config: Any) -> None:
    """Train the toy; rank 1 dies after the third step."""
    toy_trainer(Path(output), hooks=(Vanish(),), **config).fit()


def hold_lock(output: str, events: str) -> None:
    """Lock a run folder and wait to be killed."""
    with RunFolder(output).lock():
        os.write(os.open(events, os.O_WRONLY), b"l")
        signal.pause()


def hold_lock_with_forked_child(output: str, events: str) -> None:
    """Lock a run folder, fork a child as loader workers are forked, and wait to be killed."""
    with RunFolder(output).lock():
        child = os.fork()
        if child == 0:
            signal.pause()
        os.write(os.open(events, os.O_WRONLY), json.dumps({"child": child}).encode() + b"\n")
        signal.pause()


def train_float64(output: str, **config: Any) -> None:
    """Train without dropout in float64, where grouping of samples must not matter."""
    dataset = ToyDataset(augment=True)
    config = {"precision": "fp64"} | config
    toy_trainer(Path(output), task=toy_task(dropout=0.0), dataset=dataset, **config).fit()


def shard_and_save(output: str) -> None:
    """Take three steps with a sharded model, save it whole from rank 0, and restore it to fresh shards."""
    config = TrainConfig(steps=3, batch_size=2, ema_decay=0.5)
    accelerator = build_accelerator(config)
    model = toy_task(dropout=0.0).model
    fully_shard(model, mesh=init_device_mesh("cpu", (accelerator.num_processes,)))
    parameters = trainable_parameters(model)
    optimizer = build_optimizer(parameters, {"name": "adamw", "lr": 0.1}).optimizer
    average = ParameterAverage(parameters, config)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        x = torch.randn(4, 6, generator=generator)
        optimizer.zero_grad()
        model(x).square().mean().backward()
        clip_gradients(parameters.values(), 0.1, gradient_norm(accelerator, parameters.values()))
        optimizer.step()
        average.update()
    world = World.current()
    tensors = {
        "weights": stored_weights(model),
        "ema": average.tensors(),
        "optimizer": optimizer_tensors(optimizer, parameters),
    }
    path = save_checkpoint(Path(output), 3, **tensors, state=average.state(), world=world)
    saved = open_checkpoint(path, world, accelerator.device)
    fresh = toy_task(seed=9).model
    fully_shard(fresh, mesh=init_device_mesh("cpu", (accelerator.num_processes,)))
    restore_weights(fresh, saved.weights, frozen=None, where="memory")
    _assert_equal(stored_weights(fresh), tensors["weights"])
    named = trainable_parameters(fresh)
    other = build_optimizer(named, {"name": "adamw", "lr": 0.1}).optimizer
    load_optimizer_tensors(other, named, saved.optimizer, where="memory")
    _assert_equal(optimizer_tensors(other, named), tensors["optimizer"])
    copy = ParameterAverage(named, config)
    copy.restore(saved.ema, average.state(), where="memory")
    _assert_equal(copy.tensors(), tensors["ema"])


def _assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(own_part(found[name]).equal(own_part(tensor)) for name, tensor in expected.items())


class Maps(nn.Module):
    """Two blocks of one matrix each, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(6, 6, bias=False) for _ in range(2))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x).tanh()
        head: Tensor = self.head(x)
        return head


def shard_muon(output: str) -> None:
    """Three steps of Muon and AdamW on a sharded model with averages to combine, saved and restored whole."""
    config = TrainConfig(steps=3, batch_size=2)
    accelerator = build_accelerator(config)

    def sharded(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        model = Maps()
        fully_shard(model, mesh=init_device_mesh("cpu", (accelerator.num_processes,)))
        return model

    model = sharded(0)
    parameters = trainable_parameters(model)
    optimizer = build_optimizer(parameters, {"name": "muon", "lr": MUON_RATE}).optimizer
    profiles = PowerAverages(parameters, [0.05, 0.1])
    generator = torch.Generator().manual_seed(1)
    for step in range(1, 4):
        optimizer.zero_grad()
        model(torch.randn(4, 6, generator=generator)).square().mean().backward()
        optimizer.step()
        profiles.update(step)
    tensors = optimizer_tensors(optimizer, parameters) | profiles.tensors()
    world = World.current()
    weights = stored_weights(model)
    path = save_checkpoint(Path(output), 3, weights=weights, optimizer=tensors, state={}, world=world)
    named = trainable_parameters(sharded(9))
    other = build_optimizer(named, {"name": "muon", "lr": MUON_RATE}).optimizer
    slots, kept = split_slots(open_checkpoint(path, world, accelerator.device).optimizer)
    load_optimizer_tensors(other, named, slots, where="memory")
    copy = PowerAverages(named, [0.05, 0.1])
    copy.restore(kept, where="memory")
    _assert_equal(optimizer_tensors(other, named) | copy.tensors(), tensors)


def train_recipe(output: str, recipe: dict[str, Any], until: int | None = None) -> None:
    """Train from a recipe, as `genzoo train` does, to its last step or until an earlier one."""
    from genzoo.api.training.train import train_recipe as train_from
    from genzoo.core.recipe import recipe_from

    train_from(recipe_from(recipe), output=output, until=until)


def _write_seen(output: Path, task: ToyTask) -> None:
    rank = os.environ.get("RANK", "0")
    (output / f"seen_{rank}.json").write_text(json.dumps(task.seen))


def train_recipe_with_file_limit(output: str, recipe: dict[str, Any], limit: int) -> None:
    """Train from a recipe where no file may grow beyond `limit` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    train_recipe(output, recipe)


def load_and_save(run: str, output: str, recipe: dict[str, Any], *, shared: bool = True) -> None:
    """Restore a run's newest checkpoint, sharded or not, and save the same step elsewhere.

    shared: False where process 1 does not see what the first one writes.
    """
    from genzoo.api.training.train import build_trainer
    from genzoo.core.recipe import recipe_from
    from genzoo.training.state import capture, restore

    sees = Path.is_dir
    if not shared and os.environ["RANK"] == "1":
        Path.is_dir = lambda self: not self.name.startswith(".tmp-") and sees(self)  # type: ignore[method-assign]
    trainer, _ = build_trainer(recipe_from(recipe), output=output)
    newest = next(iter(checkpoint_steps(Path(run) / "checkpoints").values()))
    restore(trainer.parts, open_checkpoint(newest, trainer.world, trainer.device))
    content = capture(trainer.parts, 4)
    if trainer.is_sharded or trainer.is_main:
        parts = {"weights": content.weights, "ema": content.ema, "optimizer": content.optimizer}
        save_checkpoint(Path(output), 4, **parts, state={}, world=trainer.world)


def train_recipe_and_spoil(output: str, recipe: dict[str, Any]) -> None:
    """Train from a recipe; before the second save an average that process 1 holds is no number."""
    save = Saver.save

    def spoilt(saver: Saver, content: Any, step: int) -> None:
        if os.environ["RANK"] == "1" and step == 4:
            parts = map(own_part, content.ema.values())
            next(part for part in parts if part.numel()).fill_(float("inf"))
        save(saver, content, step)

    Saver.save = spoilt  # type: ignore[method-assign]
    train_recipe(output, recipe)


def train_recipe_and_lose_writer(output: str, recipe: dict[str, Any]) -> None:
    """Train from a recipe; process 1 is killed when it is to write its rows of the second checkpoint."""
    write, written = FilesInRows.write, []

    def fatal(files: FilesInRows, own: Any) -> Any:
        written.append(files.folder)
        if os.environ["RANK"] == "1" and len(written) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return write(files, own)

    FilesInRows.write = fatal  # type: ignore[method-assign]
    train_recipe(output, recipe)


def rows_held(output: str, rows: list[int]) -> None:
    """Which rows of tensors of so many rows this process holds, after sharding, to RANK.pt."""
    config = TrainConfig(steps=1, batch_size=3, sharding="full")
    accelerator = build_accelerator(config)
    held = {}
    for count in rows:
        model = Maps()
        model.head.weight = nn.Parameter(torch.arange(float(count)).view(count, 1).expand(count, 6).clone())
        fully_shard(model, mesh=init_device_mesh("cpu", (accelerator.num_processes,)))
        held[count] = own_part(model.head.weight)[:, 0].tolist()
    torch.save(held, Path(output) / f"{accelerator.process_index}.pt")


def train_recipe_slowly(
    output: str, *, recipe: dict[str, Any], seconds: float, until: int | None = None
) -> None:
    """Train a recipe; in process 1 each block of samples takes its time, or it dies at block `until`."""
    from genzoo.api.run import train as train_run
    from genzoo.api.sampling import plan as sampling_plan
    from genzoo.core.recipe import recipe_from

    draw, waiting, drawn = sampling_plan.sample_block, threading.Event(), []

    def slowly(task: Any, plan: Any, block: range) -> Tensor:
        drawn.append(block.start)
        Path(output).with_name(f"drawn_{os.environ['RANK']}.json").write_text(json.dumps(drawn))
        if os.environ["RANK"] == "1":
            if len(drawn) == until:
                os.kill(os.getpid(), signal.SIGKILL)
            waiting.wait(seconds)
        return draw(task, plan, block)

    sampling_plan.sample_block = slowly
    train_run(recipe_from(recipe), output=output)


class Unreadable(ToyDataset):
    """A data set one of whose items cannot be read."""

    def __init__(self, item: int) -> None:
        super().__init__(bad=(item,))


def train_on_unreadable(output: str, item: int, **config: Any) -> None:
    """Train the toy; one item cannot be read, by whichever process meets it."""
    toy_trainer(Path(output), dataset=Unreadable(item), **config).fit()


def train_until_told(output: str, **config: Any) -> None:
    """Train the toy for ever, and write this process's id to pid_RANK."""
    (Path(output).parent / f"pid_{os.environ['RANK']}").write_text(str(os.getpid()))
    toy_trainer(Path(output), steps=10**6, checkpoint_every=10**6, **config).fit()


def share_data(output: str, data: dict[str, Any], *, travels: bool = True) -> None:
    """Build a data set in every process; each writes how often it looked at files, and what it then has."""
    looked = {"scandir": 0, "stat": 0}

    def counted(name: str) -> Any:
        original = vars(os)[name]

        def call(*arguments: Any, **options: Any) -> Any:
            looked[name] += str(data["root"]) in str(arguments[0])
            return original(*arguments, **options)

        return call

    for name in looked:
        setattr(os, name, counted(name))
    if not travels:
        ImageFolder.__reduce__ = lambda self: _refuse()  # type: ignore[method-assign]
    model = {"name": "dit", "num_heads": 2, "patch_size": 2, "depth": 1, "hidden_size": 4}
    task = {"name": "latent_diffusion"}
    plan = plan_of(recipe_from({"name": "shared", "task": task, "model": model, "data": data}))
    with connected() as world:
        dataset: Any = build_dataset(plan, world)
        found = {"fingerprint": dataset.fingerprint, "labels": dataset.labels.tolist(), **looked}
        found["pixels"] = float(dataset.fetch(3)["pixels"].double().sum())
        Path(output, f"data_{world.rank}.json").write_text(json.dumps(found))


def _refuse() -> Any:
    raise TypeError("a lock does not travel")
