"""The fork server of this folder's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fork_server import ForkServer


@pytest.fixture(params=["foreground", "background"])
def saving(request: pytest.FixtureRequest) -> dict[str, str]:
    """How checkpoints are written, as settings of a training: the same promises hold for both."""
    return {"save": request.param}


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    server = ForkServer(tmp_path_factory.mktemp("fork_server"), Path(__file__).with_name("cases.py"))
    yield server
    server.close()
