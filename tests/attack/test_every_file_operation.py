"""Every file operation of every command, killed and failed: nothing is damaged, and the command goes on."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import pytest
from bench import Bench, Trial, chosen
from fork_server import ForkServer
from scenarios import SCENARIOS, Scenario

logger = logging.getLogger(__name__)
pytestmark = pytest.mark.timeout(6 * 3600)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_command_survives_its_disk(
    attacked: ForkServer, inputs: Path, tmp_path: Path, scenario: Scenario
) -> None:
    bench = Bench(attacked, inputs, tmp_path / "work", scenario)
    counts: Counter[str] = Counter()
    losses: list[str] = []
    for fault, operation in chosen(bench.operations):
        counts[fault] += 1
        found = [f"{Trial(scenario, fault, operation)}: {what}" for what in bench.attempt(fault, operation)]
        losses += found
        for one in found:
            logger.warning("%s", one)  # told at once: a whole grid takes an hour
        if counts.total() % 20 == 0:
            logger.info("%s: up to operation %d, %s", scenario.name, operation.number, dict(counts))
    told = scenario.name, len(bench.operations), dict(counts), len(losses)
    logger.info("%s: %d operations, %s, %d losses", *told)
    assert not losses, "\n".join(losses)
