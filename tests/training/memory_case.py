"""How much memory each of several processes needs to save and to load what they hold together."""

from __future__ import annotations

import ctypes
import json
import re
import threading
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from genzoo.core.checkpoint_saving import save_checkpoint
from genzoo.core.host_copies import HostCopies
from genzoo.core.model_state import assign, trainable_parameters
from genzoo.core.processes import World
from genzoo.core.sharded import own_part
from genzoo.core.stored_tensors import open_checkpoint
from genzoo.training.config import TrainConfig
from genzoo.training.devices import build_accelerator
from genzoo.training.ema import ParameterAverage
from genzoo.training.optim import build_optimizer, load_optimizer_tensors, optimizer_tensors

WIDTH = 1024  # a matrix of 4 MB
OPTIM = {"name": "adamw", "lr": 0.1}


class Wide(nn.Module):
    """Matrices, each a block of its own."""

    def __init__(self, matrices: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(matrices))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class Peak:
    """Within the block, the most memory of its own that this process holds above what it held before.

    Own memory, not pages of files: those that a mapped file brings in go when they are needed elsewhere.
    """

    def __init__(self) -> None:
        self.most, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Peak:
        ctypes.CDLL(None).malloc_trim(0)  # or what was freed before would be used again, unseen
        self.before = _own_bytes()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.most = max(self.most, _own_bytes() - self.before)
            if self._stop.wait(0.001):
                return


def _own_bytes() -> int:
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def save_and_load(output: str, matrices: int) -> None:
    """Save a model, its average and AdamW's state, shared out; load them; the peaks go to RANK.json."""
    config = TrainConfig(steps=1, batch_size=6, sharding="full")
    accelerator, world = build_accelerator(config), World.current()
    _measured(Path(output, "first"), 1, config, world, accelerator.device)  # what is imported on the way
    found = _measured(Path(output, "second"), matrices, config, world, accelerator.device)
    Path(output, f"{world.rank}.json").write_text(json.dumps(found))


def _measured(
    root: Path, matrices: int, config: TrainConfig, world: World, device: torch.device
) -> dict[str, int]:
    parameters = _sharded(matrices, world)
    optimizer = build_optimizer(parameters, OPTIM).optimizer
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    average = ParameterAverage(parameters, config)
    parts = {"weights": dict(parameters), "ema": average.tensors()}
    parts["optimizer"] = optimizer_tensors(optimizer, parameters)
    every = [tensor for tensors in parts.values() for tensor in tensors.values()]
    found = {"whole": sum(tensor.nbytes for tensor in every), "largest": max(t.nbytes for t in every)}
    found["share"] = sum(own_part(tensor).nbytes for tensor in every)
    with Peak() as peak:
        path = save_checkpoint(root, 1, **parts, state={}, world=world)
    found["saving"] = peak.most
    fresh = build_optimizer(parameters, OPTIM).optimizer
    with Peak() as peak:
        opened = open_checkpoint(path, world, device)
        for targets, tensors in ((dict(parameters), opened.weights), (average.tensors(), opened.ema)):
            assign(targets, tensors)
        load_optimizer_tensors(fresh, parameters, opened.optimizer, where="memory")
    slots = optimizer_tensors(fresh, parameters).values()
    found["loading"] = peak.most - sum(own_part(tensor).nbytes for tensor in slots)
    with Peak() as peak:
        copies = HostCopies()
        copies.make_room(parts if world.is_first else {})
        copies.fill(parts, keeps=world.is_first)
    found["copying"] = peak.most
    return found


def _sharded(matrices: int, world: World) -> dict[str, nn.Parameter]:
    model = Wide(matrices)
    mesh = init_device_mesh("cpu", (world.size,))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return trainable_parameters(model)
