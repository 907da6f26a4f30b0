"""Nobody holds a whole model to save or to load it: a share, a few tensors, and at most 64 MB on the way."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest
from fork_server import ForkServer

from genzoo.core.stored_tensors import AHEAD

logger = logging.getLogger(__name__)
LIMIT = 500.0  # seconds, on a machine that has other work
MATRICES = 24


@pytest.mark.distributed
@pytest.mark.timeout(1100)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells what a process holds")
@pytest.mark.parametrize("world", [2, 3])
def test_saving_and_loading_hold_little_beyond_the_share(
    tmp_path: Path, fork_server: ForkServer, world: int
) -> None:
    options = {"world": world, "output": str(tmp_path), "matrices": MATRICES}
    for child in fork_server.start_ranks("memory_case:save_and_load", **options):
        assert child.wait(LIMIT) == 0, child.output()
    for rank in range(world):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        logger.info("process %d of %d: %s", rank, world, {k: f"{v / 1e6:.1f} MB" for k, v in found.items()})
        assert found["share"] <= found["whole"] / world + found["largest"]
        assert found["saving"] <= AHEAD + found["largest"]
        assert found["loading"] <= AHEAD + found["largest"]
        # beside the steps the first process keeps a whole copy, and nobody else any
        assert found["copying"] <= AHEAD + found["largest"] + (found["whole"] if rank == 0 else 0)
