"""Errors for users: what was wrong, where, why, and what to do, with the exit codes of the command line."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Sequence
from typing import Any


class GenzooError(Exception):
    """Base of every error a user can cause or mend.

    what: one sentence, always shown.   where: file, key or tensor.   why: what was seen.   fix: what to do.
    """

    exit_code = 1

    def __init__(
        self, what: str, *, where: str | None = None, why: str | None = None, fix: str | None = None
    ) -> None:
        self.what, self.where, self.why, self.fix = what, where, why, fix
        super().__init__(self._render())

    def __reduce__(self) -> tuple[Any, ...]:
        # errors travel between processes, and some constructors ask for more than their text
        return _again, (type(self), self.args, self.__dict__)

    def _render(self) -> str:
        lines = [self.what]
        lines += [f"  where: {self.where}"] if self.where else []
        lines += [f"  why:   {self.why}"] if self.why else []
        lines += [f"  fix:   {self.fix}"] if self.fix else []
        return "\n".join(lines)


def _again(kind: type[GenzooError], args: tuple[Any, ...], content: dict[str, Any]) -> GenzooError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(content)
    return error


class UsageError(GenzooError, ValueError):
    """A command or a call was given arguments that do not go together."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe has unknown keys, wrong types or impossible values; `what` lists all of them."""


class RegistryError(UsageError):
    """A name is not registered, or registered twice."""


class ShapeError(UsageError):
    """Tensors do not fit together; the message prints the shapes."""


class RunLockedError(UsageError):
    """Another process writes to the same run folder."""


class MissingDependencyError(GenzooError, ImportError):
    """An optional package is not installed; the message names the extra."""

    exit_code = 3


class BackendUnavailable(MissingDependencyError):
    """A kernel backend was asked for by name and cannot run here; the message says why."""


class DataError(GenzooError, ValueError):
    """Data are missing, unreadable, or do not fit the model."""

    exit_code = 4


class WeightsError(GenzooError, ValueError):
    """Weights are missing, or do not fit the model."""

    exit_code = 4


class CheckpointError(WeightsError):
    """A checkpoint is truncated, corrupt, hostile, or belongs to another model."""


class RunLostError(DataError):
    """The run folder was removed or replaced while a process was writing to it; the message says so."""


class NonFiniteError(GenzooError, ArithmeticError):
    """A loss, gradient or weight became NaN or infinite; the message names the first module that shows it."""

    exit_code = 5


class OutOfMemoryError(GenzooError, MemoryError):
    """The device ran out of memory; the message says which batch sizes to try."""

    exit_code = 6


class Interrupted(GenzooError):
    """A signal asked the run to stop; a checkpoint was saved first. exit_code is 128 + the signal."""

    def __init__(self, what: str, *, signum: int, **details: str | None) -> None:
        super().__init__(what, **details)
        self.exit_code = 128 + signum


# what allocators say in a RuntimeError: torch's on CPU, CUDA and MPS, the system's; sizes beyond any memory
_NO_MEMORY = (
    "DefaultCPUAllocator", "out of memory", "can't allocate memory", "not enough memory",
    "Cannot allocate memory", "Storage size calculation overflowed", "bad_alloc", "Unable to allocate",
)  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of any library means that there is not memory enough."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _NO_MEMORY)


def exit_code_of(error: BaseException) -> int:
    """The code with which the command line ends for an error of any library."""
    if isinstance(error, GenzooError):
        return error.exit_code
    if is_out_of_memory(error):
        return 6
    if isinstance(error, ImportError):
        return 3
    return 4 if isinstance(error, OSError) else 1


def nearest(name: str, choices: Iterable[str], *, limit: int = 3) -> list[str]:
    """The valid names closest to a misspelt one, best first; capitals do not make a name another one."""
    known: dict[str, str] = {}
    for choice in choices:
        known.setdefault(choice.lower(), choice)
    return [known[low] for low in difflib.get_close_matches(name.lower(), known, n=limit, cutoff=0.5)]


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """'did you mean 'depth'?', or an empty string when nothing is near."""
    close = nearest(name, choices)
    return f"did you mean {' or '.join(repr(c) for c in close)}?" if close else ""


def unused_options(unknown: Iterable[str], known: Sequence[str]) -> UsageError:
    """The error for options, one at least, that a task's `conditions` does not take."""
    names = list(unknown)
    hint = did_you_mean(names[0], known) or f"it takes {', '.join(known)}"
    return UsageError(f"this task has no use for {', '.join(map(repr, names))}", fix=hint)
