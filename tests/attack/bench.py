"""One trial after another in one work folder: disturb a command, look, run it again, compare."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from extent import WHOLE, tried
from fork_server import ForkServer
from scenarios import Scenario, copy_inputs
from trees import damage, leftovers, tree

ACTIONS = {"count": 0, "kill": 1, "kill after": 2, "EIO": 3, "ENOSPC": 4}
CODES = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC}
GROWING = ("open", "write", "truncate", "mkdir", "rename", "link")
# a preview of the step at which a run was killed is not drawn again; a cache is made when it is needed
MAY_BE_LOST = ("out/samples/", "cache/")
FAULTS = ("kill", "EIO", "ENOSPC")


class Operation(NamedTuple):
    """number: among all that were tried, whether they succeeded or not.   path: in the work folder."""

    number: int
    kind: str
    path: str


@dataclass(frozen=True)
class Trial:
    """What was done: a fault at an operation of a scenario."""

    scenario: Scenario
    fault: str
    operation: Operation

    def __str__(self) -> str:
        number, kind, path = self.operation
        return f"{self.scenario.name}: {self.fault} at {number}, {kind} {path}"


class Bench:
    """The work folder of one scenario. Every trial begins with the same files at the same place."""

    def __init__(self, server: ForkServer, inputs: Path, work: Path, scenario: Scenario) -> None:
        self.server, self.work, self.scenario = server, work, scenario
        self.template = work.with_name(f"{work.name}-template")
        self.record = work.with_name(f"{work.name}.record")
        work.mkdir()
        copy_inputs(inputs, work, scenario)
        if scenario.stopped_at is not None:
            self._stop_first_start(*scenario.stopped_at)
        if scenario.again:
            self.count()
        shutil.copytree(work, self.template)
        self.before = tree(work, scenario.writes)
        self.operations = self.count()
        self.after = self._result()
        assert scenario.again or self.after != self.before, "the command wrote nothing"

    def count(self, *, reads: bool = False) -> list[Operation]:
        """What the command does, undisturbed.   reads: files that it opens to read, too."""
        code, output = self.run("count", reads=reads)
        assert code == 0, output
        lines = [line.split("\t") for line in self.record.read_text().splitlines()]
        return [
            Operation(int(number), kind, str(Path(path).relative_to(self.work)))
            for number, kind, path, *_ in lines
        ]

    def _stop_first_start(self, kind: str, text: str) -> None:
        reached = [one for one in self.count() if one.kind == kind and text in one.path]
        for name in self.scenario.writes:
            shutil.rmtree(self.work / name, ignore_errors=True)
        code, output = self.run("kill", reached[0].number)
        assert code == -9, output

    def _result(self) -> dict[str, Any]:
        found = tree(self.work, self.scenario.writes)
        return {name: one for name, one in found.items() if not name.startswith(MAY_BE_LOST)}

    def reset(self) -> None:
        shutil.rmtree(self.work)
        shutil.copytree(self.template, self.work)

    def run(
        self, fault: str | None = None, number: int = 0, *, code: int = 0, reads: bool = False
    ) -> tuple[int, str]:
        """Run the command, disturbed or not: its exit code and what it printed."""
        armed: dict[str, Any] | None = None
        if fault is not None:
            self.record.unlink(missing_ok=True)
            armed = {
                "folder": str(self.work), "action": ACTIONS[fault], "number": number, "data": False,
                "code": code or CODES.get(fault, 0), "reads": reads,
                "record": str(self.record) if fault == "count" else "",
            }  # fmt: skip
        child = self.server.start(
            "attack_cases:command", env={"GENZOO_CACHE": str(self.work / "cache")},
            arguments=list(self.scenario.arguments), folder=str(self.work), fault=armed,
        )  # fmt: skip
        return child.wait(120), child.output()

    def attempt(self, fault: str, operation: Operation) -> Iterator[str]:
        """What went wrong in one trial; nothing when every promise held."""
        self.reset()
        yield from self._look(fault, *self.run(fault, operation.number))
        again, said = self.run()
        yield from self._compare(again, said)
        if again != 2 and (
            left := [name for name in leftovers(self.work) if not name.startswith(MAY_BE_LOST)]
        ):
            yield f"left behind: {left}"

    def _compare(self, again: int, said: str) -> Iterator[str]:
        """How the same command ended when it was run again: it gives the undisturbed result."""
        result = self._result()
        if again == 2 and result == self.after:
            return  # all was done, and a second time is refused: it would replace what is there
        if again != 0:
            yield f"the same command again ended with {again}: {said[-300:]}"
        elif result != self.after:
            yield f"another result: {_differences(result, self.after)}"

    def _look(self, fault: str, code: int, output: str) -> Iterator[str]:
        """Right after the fault: how it ended, what it said, and what is there."""
        if (code == -9) != fault.startswith("kill") or code not in (-9, 0, 4):
            yield f"exit code {code}: {output[-300:]}"
        if "this is a bug" in output or "Traceback" in output:
            yield f"no message for users: {output[-300:]}"
        for name in self.scenario.reads:
            if name not in self.scenario.writes and _bytes(self.work / name) != _bytes(self.template / name):
                yield f"changed: {name}"
        found = damage(self.work, self.scenario.writes)
        yield from (f"damaged: {one}" for one in found)
        if not found:
            yield from self._lost()

    def _lost(self) -> Iterator[str]:
        """What was there before and is neither that nor what it was to become."""
        now = tree(
            self.work, [name for name in self.before.keys() & self.after.keys() if "jsonl" not in name]
        )
        for name, found in now.items():
            if found not in (self.before[name], self.after[name]):
                yield f"neither old nor new: {name}"

    def refuse(self, code: int, operation: Operation) -> Iterator[str]:
        """What went wrong when the disk refused once to open a file that the command reads."""
        self.reset()
        ended, output = self.run("EIO", operation.number, code=code, reads=True)
        name = Path(operation.path).name
        if ended not in (0, 2, 4):
            yield f"exit code {ended}: {output[-400:]}"
        if "this is a bug" in output or "Traceback" in output:
            yield f"no message for users: {output[-400:]}"
        if ended and name not in output:
            yield f"{name} is not named: {output[-400:]}"
        for path in self.scenario.reads:
            if path not in self.scenario.writes and _bytes(self.work / path) != _bytes(self.template / path):
                yield f"changed: {path}"
        other = self._result() != self.after
        if ended == 0 and other and name not in output:
            yield f"another result without a word: {_differences(self._result(), self.after)}"
        if ended or other:  # commands on many files name the bad ones and go on: again makes up for them
            yield from self._compare(*self.run())


def _bytes(path: Path) -> dict[Path, bytes]:
    found = path.rglob("*") if path.is_dir() else [path]
    return {one.relative_to(path): one.read_bytes() for one in found if one.is_file()}


def _differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    names = sorted(one.keys() | other.keys())
    return [name for name in names if name not in one or name not in other or one[name] != other[name]]


def chosen(operations: list[Operation]) -> Iterator[tuple[str, Operation]]:
    """Faults and where they strike: at every operation asked for, or in the middle of each kind of them."""
    kinds: dict[str, list[Operation]] = {}
    for operation in operations:
        kinds.setdefault(operation.kind, []).append(operation)
    middles = [found[len(found) // 2] for found in kinds.values()]
    for operation in tried(operations, middles):
        for fault in FAULTS:
            if fault != "ENOSPC" or operation.kind in GROWING:  # a full disk takes all else
                yield fault, operation
        if WHOLE and operation.kind == "write":  # safetensors renames by a system call that nothing can count
            yield "kill after", operation
