"""A file that a disk refuses once to open, of every kind and in every command: named, and nothing is lost."""

from __future__ import annotations

import errno
import itertools
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from bench import Bench, Operation
from extent import WHOLE, tried
from fork_server import ForkServer
from scenarios import READING, Scenario

from genzoo.core.leftovers import TEMPORARY

logger = logging.getLogger(__name__)
CODES = (errno.EIO, errno.EMFILE, errno.ENOENT, errno.ESTALE)
pytestmark = [
    pytest.mark.timeout(6 * 3600),
    pytest.mark.skipif(not WHOLE, reason="part of `make attack` alone: minutes for a part of it"),
]


def of_every_kind(reads: Sequence[Operation]) -> list[tuple[int, Operation]]:
    """The last reading of each kind of file, whose names differ in numbers alone; the codes take turns."""
    kinds = {re.sub(r"\d+", "", one.path): one for one in reads}
    return list(zip(itertools.cycle(CODES), kinds.values(), strict=False))


@pytest.mark.slow
@pytest.mark.parametrize("scenario", READING, ids=lambda scenario: scenario.name)
def test_a_file_that_is_refused_is_named_and_nothing_is_lost(
    attacked: ForkServer, inputs: Path, tmp_path: Path, scenario: Scenario
) -> None:
    bench = Bench(attacked, inputs, tmp_path / "work", scenario)
    bench.reset()
    reads = [one for one in bench.count(reads=True) if one.kind == "read" and TEMPORARY not in one.path]
    assert reads
    grid = list(itertools.product(CODES, reads))
    losses, trials = [], list(tried(grid, of_every_kind(reads)))
    for code, operation in trials:
        where = f"{scenario.name}: {errno.errorcode[code]} at {operation.number}, {operation.path}"
        found = [f"{where}: {what}" for what in bench.refuse(code, operation)]
        losses += found
        for one in found:
            logger.warning("%s", one)
    logger.info("%s: %d readings, %d trials, %d losses", scenario.name, len(reads), len(trials), len(losses))
    assert not losses, "\n".join(losses)
