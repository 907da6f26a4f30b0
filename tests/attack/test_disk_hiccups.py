"""A disk that fails for a moment while a latent cache is read: nothing in it is removed."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

import pytest
from bench import Bench
from fork_server import ForkServer
from scenarios import LATENTS_AGAIN
from trees import tree

logger = logging.getLogger(__name__)
HICCUPS = (errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE)


@pytest.mark.timeout(600)
def test_a_hiccup_while_reading_costs_no_latents(attacked: ForkServer, inputs: Path, tmp_path: Path) -> None:
    bench = Bench(attacked, inputs, tmp_path / "work", LATENTS_AGAIN)
    bench.reset()
    reads = [one for one in bench.count(reads=True) if one.kind == "read" and "shard-" in one.path]
    assert reads
    shard = bench.template / reads[0].path
    for code in HICCUPS:
        for operation in reads:
            bench.reset()
            ended, output = bench.run("EIO", operation.number, code=code, reads=True)
            assert ended == 4, output
            assert "nothing in it was removed" in output
            assert (bench.work / reads[0].path).read_bytes() == shard.read_bytes()
            again, said = bench.run()
            assert (again, "8 reused" in said) == (0, True), said
            assert tree(bench.work, LATENTS_AGAIN.writes) == bench.after
    logger.info("hiccups: %d reads of shards, %d errors, 0 losses", len(reads), len(HICCUPS))
