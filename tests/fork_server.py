"""Start many processes cheaply: one process imports torch once and forks a child for each request.

Run as a script with the name of a module to import, it reads JSON requests from standard input, one a line,
and answers on standard output. `ForkServer` is the client. A child runs `module:function(**kwargs)` and ends
as the command line would.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from torch.distributed import TCPStore


class Child:
    """A forked process. Its output is in `log`."""

    def __init__(self, server: ForkServer, pid: int, log: Path) -> None:
        self.server, self.pid, self.log = server, pid, log

    def kill(self, signum: int = signal.SIGKILL) -> None:
        os.kill(self.pid, signum)

    def wait(self, timeout: float = 400.0) -> int:
        """The exit code, or minus the signal that ended it. A child that hangs is an error with its log."""
        code = self.server.request(op="wait", pid=self.pid, timeout=timeout)["code"]
        if code is None:
            self.kill()
            raise AssertionError(f"process {self.pid} did not end:\n{self.output()}")
        return code

    def output(self) -> str:
        return self.log.read_text(errors="replace")


class ForkServer:
    """The client of one server process.   cases: the file with what children run, imported once."""

    def __init__(self, logs: Path, cases: Path, *, env: dict[str, str] | None = None) -> None:
        here = Path(__file__).resolve()
        kept = [text] if (text := os.environ.get("PYTHONPATH")) else []
        path = os.pathsep.join(map(str, [here.parents[1], cases.parent, here.parent, *kept]))
        common = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        environment = os.environ | common | (env or {})
        self.logs, self.count = logs, 0
        self.process = subprocess.Popen(
            [sys.executable, __file__, cases.stem],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.request(op="ready")  # everything is imported

    def request(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, target: str, *, env: dict[str, str] | None = None, **kwargs: Any) -> Child:
        self.count += 1
        log = self.logs / f"{self.count}.log"
        answer = self.request(op="start", target=target, kwargs=kwargs, env=env or {}, log=str(log))
        return Child(self, answer["pid"], log)

    def start_ranks(
        self, target: str, *, world: int, env: dict[str, str] | None = None, **kwargs: Any
    ) -> list[Child]:
        """One child for each rank of a gloo group, with the environment torchrun would give it.

        As torchrun's, the store in which they meet outlives each of them.
        """
        self.store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        port = str(self.store.port)
        common = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        common |= {"TORCHELASTIC_USE_AGENT_STORE": "True"}
        ranks = [common | (env or {}) | {"RANK": str(r), "LOCAL_RANK": str(r)} for r in range(world)]
        return [self.start(target, env=one, **kwargs) for one in ranks]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # a process of another test still holds the other end of its input
            self.process.kill()
            self.process.wait()


def serve() -> None:
    importlib.import_module(sys.argv[1])
    gc.freeze()  # children that collect garbage would copy every page
    for line in sys.stdin:
        request = json.loads(line)
        answer = OPERATIONS[request["op"]](request)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _start(request: dict[str, Any]) -> dict[str, Any]:
    pid = os.fork()
    if pid == 0:
        _become(request)
    return {"pid": pid}


def _become(request: dict[str, Any]) -> NoReturn:
    descriptor = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    null = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, null), (1, descriptor), (2, descriptor)):
        os.dup2(source, target)
    faulthandler.enable()
    # whoever started the tests in the background had these ignored, and so has every child
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.environ.update(request["env"])
    module, _, name = request["target"].partition(":")
    code = 1
    try:
        getattr(importlib.import_module(module), name)(**request["kwargs"])
        code = 0
    except BaseException as error:
        traceback.print_exc()
        code = getattr(error, "exit_code", 1)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(request: dict[str, Any]) -> dict[str, Any]:
    until = time.monotonic() + request["timeout"]
    while time.monotonic() < until:
        pid, status = os.waitpid(request["pid"], os.WNOHANG)
        if pid:
            return {"code": os.waitstatus_to_exitcode(status)}
        time.sleep(0.002)
    return {"code": None}


def _ready(request: dict[str, Any]) -> dict[str, Any]:
    return {}


OPERATIONS = {"ready": _ready, "start": _start, "wait": _wait}

if __name__ == "__main__":
    serve()
