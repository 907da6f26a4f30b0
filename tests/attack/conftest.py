"""The preloaded library, a server of processes under it, and what commands read.

GENZOO_ATTACK=whole (`make attack`) tries everything, 1/3, 2/3 and 3/3 a third each (`extent.py`);
otherwise of every kind a case is tried.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fork_server import ForkServer

from genzoo.kernels.native import build

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def faults_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """faults.c, compiled."""
    if not sys.platform.startswith("linux"):
        pytest.skip("libraries are preloaded on Linux alone")
    try:
        compiler = build._find_compiler(None)
    except build.NativeBuildError as error:
        pytest.skip(str(error))
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    command = [compiler, "-shared", "-fPIC", "-O2", str(HERE / "faults.c"), "-o", str(library), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return library


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the server fills with what commands read."""
    return tmp_path_factory.mktemp("inputs")


@pytest.fixture(scope="session")
def attacked(
    faults_library: Path, inputs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ForkServer]:
    """A server whose children can be disturbed; it has run every command once."""
    env = {
        "LD_PRELOAD": str(faults_library),
        "GENZOO_CACHE": str(tmp_path_factory.mktemp("cache")),
        "ATTACK_INPUTS": str(inputs),
    }
    server = ForkServer(tmp_path_factory.mktemp("attack_logs"), HERE / "attack_cases.py", env=env)
    yield server
    server.close()
