"""The one torchrun line of every script, and the script for machines without a scheduler."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from genzoo.core.errors import UsageError

SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
SHUTDOWN = 240  # seconds that a checkpoint may take after a signal
PORT = 29500


@dataclass(frozen=True)
class Job:
    """What is to run. command: words after `genzoo train`.   name: of letters, digits and dashes.

    nodes, gpus, cpus: machines, and of each the GPUs and cores.   workers: loader processes of each process.
    logs: folder for the output of each process.
    """

    name: str
    command: Sequence[str]
    logs: str
    nodes: int = 1
    gpus: int = 8
    cpus: int = 64
    workers: int = 0

    def __post_init__(self) -> None:
        if min(self.nodes, self.gpus, self.cpus) < 1:
            raise UsageError(
                f"nodes={self.nodes} gpus={self.gpus} cpus={self.cpus}", fix="at least 1 of each"
            )
        for word in (self.name, self.logs, *self.command):
            if not word.isprintable():
                raise UsageError(f"{word!r} holds a line break or the like, which a script cannot")

    @property
    def threads(self) -> int:
        """For arithmetic in each process, where all cores have work."""
        return max(1, self.cpus // self.gpus // (1 + self.workers))


def prologue(job: Job) -> list[str]:
    """Lines before torchrun: threads, and options that only some versions of torch have."""
    return [
        f"export OMP_NUM_THREADS={job.threads}",
        f"export TORCH_ELASTIC_SHUTDOWN_TIMEOUT={SHUTDOWN}",
        "options=()",
        "help=$(torchrun --help)",
        f'case $help in *--signals-to-handle*) options+=(--signals-to-handle "{SIGNALS}") ;; esac',
        f"case $help in *--shutdown-timeout*) options+=(--shutdown-timeout {SHUTDOWN}) ;; esac",
    ]


def torchrun_line(job: Job, *, nodes: str, processes: str, meeting: Sequence[str]) -> str:
    """The line itself.   nodes, processes: numbers, or words that the shell fills in.   meeting: shell words
    that say where the machines find each other.

    Restarts inside a job hang more often than not: the job ends, and the same command goes on.
    """
    words = [
        "torchrun",
        *("--nnodes", nodes, "--nproc-per-node", processes),
        *meeting,
        *("--max-restarts", "0", '"${options[@]}"'),
        *("--log-dir", shlex.quote(job.logs), "--redirects", "3", "--tee", "0:3"),
        *("-m", "genzoo", "train", *map(shlex.quote, job.command)),
    ]
    return " ".join(words)


def meeting_at(endpoint: str, name: str) -> list[str]:
    """c10d rendezvous: the first to come keeps the list, and nobody needs a number.   Shell words."""
    return ["--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", name]


def torchrun_script(job: Job) -> str:
    """A script to be started once on every machine; HEAD names the first one where there are several."""
    lines = ["#!/bin/bash", "set -euo pipefail", *prologue(job)]
    meeting = ["--standalone"]
    if job.nodes > 1:
        lines += [': "${HEAD:?name the first machine: HEAD=host bash SCRIPT, on every machine}"']
        meeting = meeting_at(f'"$HEAD:${{PORT:-{PORT}}}"', shlex.quote(job.name))
    line = torchrun_line(job, nodes=str(job.nodes), processes=str(job.gpus), meeting=meeting)
    return "\n".join([*lines, f"exec {line}", ""])
