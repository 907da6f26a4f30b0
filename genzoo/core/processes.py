"""Which of the processes that work together this one is, and the few things they tell each other.

Nothing below asks a global whether there are others: whoever shares work is handed a `World`, and each of its
processes then makes the same calls in the same order. `World.single()` works alone.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from genzoo.core.errors import GenzooError, UsageError
from genzoo.core.last_words import errors_shared

if TYPE_CHECKING:
    from torch import Tensor

Value = TypeVar("Value")
LAUNCHED = ("RANK", "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets beside WORLD_SIZE
# they meet at the end of a stage only, and the slowest disk or device decides when
PATIENCE = datetime.timedelta(hours=12)


@dataclass(frozen=True)
class World:
    """The processes that share one piece of work; this one is number `rank` of `size`.

    group: torch.distributed's, over which they talk; without one they can only divide the work.
    """

    rank: int = 0
    size: int = 1
    group: Any = None

    @classmethod
    def single(cls) -> World:
        """This process alone, whatever others there may be."""
        return cls()

    @classmethod
    def current(cls) -> World:
        """All that torch.distributed joined; without it, as torchrun numbers them, or alone."""
        distributed = sys.modules.get("torch.distributed")  # not imported, it has joined nobody
        if distributed is not None and distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size(), distributed.group.WORLD)
        require_launched("RANK")
        size = int(os.environ.get("WORLD_SIZE") or 1)
        return cls(int(os.environ["RANK"]), size) if size > 1 else cls.single()

    @property
    def is_first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def part(self, num: int) -> range:
        """This process's contiguous part of `num` items: joined by rank, the parts are in order."""
        return range(num * self.rank // self.size, num * (self.rank + 1) // self.size)

    def every(self, items: Sequence[Value]) -> Sequence[Value]:
        """This process's share of items that may be done in any order: one in `size`."""
        return items[self.rank :: self.size]

    def gather(self, value: Value) -> list[Value]:
        """Every process's value in rank order, in every process."""
        if self.size == 1:
            return [value]
        import torch.distributed as distributed

        everyone: list[Any] = [None] * self.size
        distributed.all_gather_object(everyone, value, group=self._joined())
        return everyone

    def all_agree(self, here: bool) -> bool:
        """Whether it is so in every process."""
        return all(self.gather(here))

    def together(self, action: Callable[[], Value]) -> Value:
        """Run an action in every process, and return its result here; an error in one is raised in all.

        Else the others would wait for ever for the one that failed.
        """
        if self.size == 1:
            return action()
        result, error = None, None
        try:
            result = action()
        except Exception as raised:
            error = raised
        if self._anyone(error is not None):
            self._raise_first(self.gather(_portable(error)), own=error)
        return cast(Value, result)

    def on_first(self, action: Callable[[], Value]) -> Value:
        """Run an action in the first process; all return its result, or raise its error."""
        if self.size == 1:
            return action()
        import torch.distributed as distributed

        outcome: list[Any] = [None, None]
        own: Exception | None = None
        if self.is_first:
            try:
                outcome[0] = action()
            except Exception as raised:
                outcome[1], own = _portable(raised), raised
        distributed.broadcast_object_list(outcome, group=self._joined(), group_src=0)
        self._raise_first(outcome[1:], own=own)
        return cast(Value, outcome[0])

    def errors_shared(self) -> contextlib.AbstractContextManager[None]:
        """Within the block an error of one process is raised in all, wherever they are: see `last_words`."""
        return errors_shared(self.rank, self.size)

    def broadcast(self, tensor: Tensor) -> None:
        """Fill a tensor, which has the same shape in every process, with the first one's values."""
        if self.size > 1:
            import torch.distributed as distributed

            distributed.broadcast(tensor, group=self._joined(), group_src=0)

    def wait(self) -> None:
        """Wait until every process is here."""
        self.gather(None)

    def _anyone(self, here: bool) -> bool:
        """Whether it is so in any process: one number, cheap enough for every step."""
        import torch
        import torch.distributed as distributed

        group = self._joined()
        device = "cpu" if distributed.get_backend(group) == "gloo" else default_device()
        flag = torch.tensor([int(here)], dtype=torch.int32, device=device)
        distributed.all_reduce(flag, op=distributed.ReduceOp.MAX, group=group)
        return bool(flag.item())

    def _joined(self) -> Any:
        if self.group is None:
            raise GenzooError(
                f"this process is number {self.rank} of {self.size}, and cannot talk to the others",
                why="nobody joined them",
                fix="`with connected() as world:` of genzoo.core.processes, or World.single()",
            )
        return self.group

    @staticmethod
    def _raise_first(errors: Sequence[Exception | None], *, own: Exception | None) -> None:
        if own is not None:
            raise own
        for error in errors:
            if error is not None:
                raise error


def require_launched(*names: str) -> None:
    """Raise UsageError when WORLD_SIZE says that there are others and no launcher said the rest."""
    told = {name: os.environ.get(name, "") for name in ("WORLD_SIZE", *names)}
    missing = [name for name in names if not told[name]]
    numbers = [told[name] for name in ("RANK", "WORLD_SIZE") if told.get(name)]
    if told["WORLD_SIZE"] not in ("", "1") and (missing or not all(map(str.isdecimal, numbers))):
        verb = "is" if len(missing) == 1 else "are"
        raise UsageError(
            f"WORLD_SIZE is {told['WORLD_SIZE']!r}, and no launcher says which of the processes this is",
            why=f"{', '.join(missing)} {verb} not set" if missing else "RANK or WORLD_SIZE is no number",
            fix="unset WORLD_SIZE, or start with `torchrun --nproc-per-node N -m genzoo ...`, which sets all",
        )


@contextlib.contextmanager
def connected() -> Iterator[World]:
    """The processes that torchrun started, joined until the block ends; this one alone without torchrun."""
    world = World.current()
    if world.size == 1 or world.group is not None:
        yield world
        return
    require_launched(*LAUNCHED)
    import torch.distributed as distributed

    distributed.init_process_group("gloo", timeout=PATIENCE)
    try:
        world = World.current()
        with world.errors_shared():
            yield world
    finally:
        distributed.destroy_process_group()


def launcher() -> int | None:
    """The process id of the torchrun that started this process; None without."""
    return os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None


def processes_of_a_machine() -> int:
    """How many of the processes that were launched together run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", 1)))


def default_device() -> str:
    """Where this process computes, in training and in sampling: CUDA, MPS or another accelerator, or the CPU.

    Of several devices each process of a machine takes its own. ACCELERATE_USE_CPU=true keeps to the CPU.
    """
    import torch

    kept = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "y", "on", "t")
    accelerator = None if kept else torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return "cpu"
    if accelerator.type == "mps":
        return "mps"
    number = int(os.environ.get("LOCAL_RANK", 0)) % torch.accelerator.device_count()
    return f"{accelerator.type}:{number}"


def chosen_device(name: object = None) -> str:
    """The device that a user names, or `default_device` when none is named.

    Raises UsageError when there is no such device here, with those that there are.
    """
    import torch

    if name is None:
        return default_device()
    try:
        device = torch.device(cast(str, name))
        if device.type == "meta":
            raise RuntimeError("it holds no numbers")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError, ValueError, ImportError) as error:
        raise UsageError(
            f"device is {str(name)[:40]!r}, which cannot be used here",
            why=str(error).strip().partition("\n")[0][:200],
            fix=f"one of {', '.join(_devices())}; left out, it is {default_device()}",
        ) from error
    return str(device)


def _devices() -> list[str]:
    import torch

    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None:
        return ["cpu"]
    return ["cpu", *(f"{found.type}:{number}" for number in range(torch.accelerator.device_count()))]


def _portable(error: Exception | None) -> Exception | None:
    """An error as other processes can have it: the project's own as it is, of others what they said."""
    if error is None or isinstance(error, GenzooError):
        return error
    return GenzooError(f"another process failed: {type(error).__name__}: {error}")
