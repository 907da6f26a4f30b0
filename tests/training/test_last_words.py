"""Two gloo processes, one of which fails: all of them end, in time, with the error of the one that did."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from compare import final, fingerprint
from fork_server import ForkServer
from recipe_cases import TINY

from genzoo.core.last_words import PATIENCE
from genzoo.core.run_folder import RunFolder

pytestmark = pytest.mark.distributed
LIMIT = 300.0  # seconds for both processes, on a machine that has other work
SAYS = {
    "data": (4, "a latent is not what it was"),
    "bug": (1, "RuntimeError: mat1 and mat2 do not fit"),
    "memory": (6, "out of memory at 3 samples per device"),
}


@pytest.mark.timeout(700)
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("error", list(SAYS))
def test_an_error_inside_one_forward_pass_is_what_both_say(
    tmp_path: Path, fork_server: ForkServer, error: str, rank: int
) -> None:
    options = {"output": str(tmp_path), "error": error, "rank": rank, "checkpoint_every": 2}
    ranks = fork_server.start_ranks("cases:train_broken", world=2, **options)
    code, text = SAYS[error]
    assert [one.wait(LIMIT) for one in ranks] == [code, code]
    other = ranks[1 - rank].output()
    assert f"process {rank} of 2: {text}" in other
    assert text in ranks[rank].output()
    status = RunFolder(tmp_path).status()
    assert (status["state"], status["exit_code"]) == ("failed", code)
    assert text.removeprefix("RuntimeError: ") in status["reason"]
    assert final(tmp_path).step == 2


@pytest.mark.timeout(700)
def test_three_processes_say_the_error_of_one(tmp_path: Path, fork_server: ForkServer) -> None:
    options = {"output": str(tmp_path), "error": "data", "rank": 1, "checkpoint_every": 2}
    ranks = fork_server.start_ranks("cases:train_broken", world=3, **options)
    assert [one.wait(LIMIT) for one in ranks] == [4, 4, 4]
    for one in (0, 2):
        assert "process 1 of 3: a latent is not what it was" in ranks[one].output()
        assert "why:   its hash differs" in ranks[one].output()


@pytest.mark.timeout(700)
def test_a_process_that_does_not_answer_is_named(tmp_path: Path, fork_server: ForkServer) -> None:
    options = {"output": str(tmp_path), "collective_timeout": 6 * PATIENCE, "steps": 50}
    first, second = fork_server.start_ranks("cases:train_and_stop_rank", world=2, **options)
    try:
        assert first.wait(LIMIT) == 1
    finally:
        second.kill()
    assert second.wait() == -9
    assert "process 1 of 2 did not answer in time" in first.output()
    assert "train.collective_timeout" in first.output()
    assert RunFolder(tmp_path).status()["reason"] == "process 1 of 2 did not answer in time"


RECIPE: dict[str, Any] = {
    **TINY,
    "model": {**TINY["model"], "num_classes": 10, "input_size": 8, "in_channels": 1},
    "train": {**TINY["train"], "steps": 2, "checkpoint_every": 1, "keep_last": 4},
    "preview": {"every": 1, "num": 5},
    "evaluation": {"every": 1, "protocol": "quick-pixels", "num": 8, "steps": 2},
    "report": [],
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer) -> dict[str, Any]:
    output = tmp_path_factory.mktemp("undisturbed")
    env = {"GENZOO_CACHE": str(output / "cache")}
    children = fork_server.start_ranks(
        "cases:train_recipe", world=2, env=env, output=str(output / "run"), recipe=RECIPE
    )
    for child in children:
        assert child.wait(LIMIT) == 0, child.output()
    return trained(output / "run")


def trained(run: Path) -> dict[str, Any]:
    """What a run learned; an evaluation that is made up for stands elsewhere in the log."""
    return {name: value for name, value in fingerprint(run).items() if name != "metrics"}


@pytest.mark.timeout(1300)
@pytest.mark.parametrize(
    ("state", "rank", "save"),
    [("preview", 1, "foreground"), ("evaluation", 0, "background"), ("save", 1, "background")],
)
def test_a_signal_to_one_process_in_any_state_saves_and_ends_both(
    tmp_path: Path,
    fork_server: ForkServer,
    undisturbed: dict[str, Any],
    state: str,
    rank: int,
    save: str,
) -> None:
    run, env = tmp_path / "run", {"GENZOO_CACHE": str(tmp_path / "cache")}
    recipe = {**RECIPE, "train": {**RECIPE["train"], "save": save}}
    options = {"recipe": recipe, "output": str(run)}
    ranks = fork_server.start_ranks(
        "cases:train_recipe_and_signal", world=2, env=env, state=state, rank=rank, signum=15, **options
    )
    assert [one.wait(LIMIT) for one in ranks] == [128 + signal.SIGTERM] * 2, ranks[0].output()
    assert RunFolder(run).status()["state"] == "interrupted"
    assert final(run).step == RunFolder(run).status()["step"]
    for child in fork_server.start_ranks("cases:train_recipe", world=2, env=env, **options):
        assert child.wait(LIMIT) == 0, child.output()
    assert trained(run) == undisturbed
