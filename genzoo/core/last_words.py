"""What a process that fails tells the others, who would else hear only that a connection broke.

It leaves its error in the store through which the processes met, before it ends. The others find themselves
in a broken or endless exchange, look there, and raise that error in place of their own. Where nothing was
left, those that are still there sign, and the ones that do not are named. torchrun's store outlives every
process; without torchrun it goes with the first one, and with it what was left there.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from genzoo.core import errors
from genzoo.core.errors import GenzooError, Interrupted, exit_code_of

if TYPE_CHECKING:
    from torch.distributed import Store

PATIENCE = 3.0  # seconds in which an error arrives, and in which those that are there sign
CONNECTING = datetime.timedelta(seconds=5)
LIMIT = 1000  # characters of each part of an error
_entered = 0  # as often in every process: what is left by an earlier piece of work is not read


@contextlib.contextmanager
def errors_shared(rank: int, size: int) -> Iterator[None]:
    """Within the block an error of one process is raised in all: its own here, in others one that quotes it.

    They need not be in the same call. A process that is gone or does not answer is named.
    """
    global _entered
    if size == 1:
        yield
        return
    _entered += 1
    place = f"genzoo/{os.environ.get('TORCHELASTIC_RUN_ID', '')}/{_entered}"
    try:
        yield
    except Interrupted:  # agreed by all
        raise
    except Exception as error:
        told = _learned(error, place, rank, size) if _lost_somebody(error) else None
        _leave(told or error, place, None if told else f"process {rank} of {size}")
        if told is None:
            raise
        raise told from error


def _lost_somebody(error: Exception) -> bool:
    """Whether an exchange failed, not this process's own work."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _learned(error: Exception, place: str, rank: int, size: int) -> GenzooError | None:
    """The error that another process left, or one about those that left none; None if nobody can be asked."""
    try:
        store = _store(place)
        store.set(f"here/{rank}", "yes")
        until = time.monotonic() + PATIENCE
        while not store.check(["error"]) and time.monotonic() < until:
            time.sleep(0.05)
        if store.check(["error"]):
            return _read(json.loads(store.get("error")))
        missing = [one for one in range(size) if one != rank and not store.check([f"here/{one}"])]
    except (RuntimeError, ValueError, KeyError):  # the first process had the store, and is gone or stopped
        missing = [0] if rank else []
    return _missing_error(missing, size, error) if missing else None


def _missing_error(missing: list[int], size: int, error: Exception) -> GenzooError:
    names = ", ".join(map(str, missing))
    who = f"process {names} of {size}" if len(missing) == 1 else f"processes {names} of {size}"
    late = "Timed out" in str(error) or "timeout" in str(error).lower()
    return GenzooError(
        f"{who} did not answer in time" if late else f"{who} ended without a word",
        why=str(error).strip().partition("\n")[0][:LIMIT],
        fix="look at its log and at its machine; the same command goes on from the newest checkpoint"
        + ("; train.collective_timeout says how long to wait for one that is only slow" if late else ""),
    )


def _leave(error: Exception, place: str, who: str | None) -> None:
    """Put an error where the others look, unless one is there.   who: whose it is, where it does not say."""
    if isinstance(error, GenzooError):
        words = {"what": error.what, "where": error.where, "why": error.why, "fix": error.fix}
    else:
        words = {"what": f"{type(error).__name__}: {error}"}
    told: dict[str, Any] = {name: word[:LIMIT] for name, word in words.items() if word is not None}
    told |= {"kind": type(error).__name__, "exit_code": exit_code_of(error), "who": who}
    with contextlib.suppress(RuntimeError, ValueError, KeyError):  # the error itself is raised in any case
        store = _store(place)
        if store.add("errors", 1) == 1:
            store.set("error", json.dumps(told))


def _read(told: dict[str, Any]) -> GenzooError:
    kind = getattr(errors, str(told["kind"]), GenzooError)
    known = isinstance(kind, type) and issubclass(kind, GenzooError) and kind is not Interrupted
    what = str(told["what"]) if told["who"] is None else f"{told['who']}: {told['what']}"
    details = {name: told.get(name) for name in ("where", "why", "fix")}
    error = (kind if known else GenzooError)(what, **details)
    error.exit_code = int(told["exit_code"])
    return error


def _store(place: str) -> Store:
    from torch.distributed import PrefixStore, TCPStore

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(host, port, is_master=False, timeout=CONNECTING, wait_for_workers=False)
    return PrefixStore(place, store)
