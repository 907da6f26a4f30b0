"""A model shared out over gloo processes computes what one process computes, and leaves the same files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from compare import final
from fork_server import ForkServer
from golden.many_processes_sets import layouts
from recipe_cases import TINY
from toys import toy_task, toy_trainer

from genzoo.core.checkpoint import Checkpoint, latest_valid
from genzoo.core.checkpoint_manifest import verify_checkpoint, weights_digest
from genzoo.core.errors import RecipeError, UsageError
from genzoo.core.processes import World
from genzoo.core.run_folder import read_metrics
from genzoo.training.config import TrainConfig
from genzoo.training.sharding import blocks_of, group_size, is_sharding

pytestmark = pytest.mark.distributed
LIMIT = 300.0  # seconds for a group of processes, on a machine that has other work
EXACT = 1e-12
FILES = ("model.safetensors", "ema.safetensors", "optimizer.safetensors")

RECIPE: dict[str, Any] = {
    **TINY,
    "model": {**TINY["model"], "num_classes": 10, "input_size": 8, "in_channels": 1, "hidden_size": 20},
    "optim": {"name": "adamw", "lr": 1e-2, "weight_decay": 0.1},
    "train": {
        **TINY["train"], "steps": 4, "checkpoint_every": 2, "keep_last": 4, "precision": "fp64",
        "clip_grad_norm": 0.05,
    },
    "report": [],
}  # fmt: skip
del RECIPE["preview"]


def changed(recipe: dict[str, Any], model: dict[str, Any] | None = None, **train: Any) -> dict[str, Any]:
    return {
        **recipe,
        "model": {**recipe["model"], **(model or {})},
        "train": {**recipe["train"], **train},
    }


def train(
    server: ForkServer, output: Path, recipe: dict[str, Any], world: int, until: int | None = None
) -> Path:
    children = server.start_ranks(
        "cases:train_recipe", world=world, output=str(output), recipe=recipe, until=until
    )
    for child in children:
        assert child.wait(LIMIT) == 0, child.output()
    return output


def losses(output: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(output / "metrics.jsonl") if "loss" in row]


def furthest(one: Checkpoint, other: Checkpoint) -> float:
    """The largest difference of any tensor, relative to its largest value."""
    pairs = [(one.weights, other.weights), (one.ema, other.ema), (one.optimizer, other.optimizer)]
    assert all(a.keys() == b.keys() for a, b in pairs)
    return max(
        float((a[name] - b[name]).abs().max() / a[name].abs().max().clamp_min(1e-8))
        for a, b in pairs
        for name in a
    )


def assert_same_run(found: Path, expected: Path, limit: float = EXACT) -> None:
    assert losses(found) == pytest.approx(losses(expected), rel=limit)
    assert furthest(final(found), final(expected)) < limit


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer) -> Path:
    """The run of one process."""
    return train(fork_server, tmp_path_factory.mktemp("alone") / "run", RECIPE, 1)


@pytest.mark.parametrize(
    ("world", "options"),
    [
        (2, {"sharding": "full"}),
        (3, {"sharding": "full", "micro_batch_size": 2}),
        (4, {"sharding": "hybrid", "shard_size": 2, "save": "background"}),
    ],
    ids=["full-2", "full-3-accumulating", "hybrid-2x2-saving-beside"],
)
def test_shards_compute_what_one_process_does(
    tmp_path: Path, fork_server: ForkServer, alone: Path, world: int, options: dict[str, Any]
) -> None:
    assert_same_run(train(fork_server, tmp_path / "run", changed(RECIPE, **options), world), alone)


def test_checkpointed_blocks_and_the_mamba_mixer_are_shared_out(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    mixer = {"name": "dim", "d_state": 3, "num_heads": None, "gradient_checkpointing": True}
    recipe = changed(RECIPE, mixer, steps=2)
    del recipe["model"]["num_heads"]
    expected = train(fork_server, tmp_path / "alone", recipe, 1)
    found = train(fork_server, tmp_path / "shared", changed(recipe, sharding="full"), 2)
    assert_same_run(found, expected)


def test_a_frozen_base_is_shared_out_and_samples_by_its_own_ways(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    runs = {}
    for world, options in ((1, {}), (2, {"sharding": "full"})):
        runs[world] = tmp_path / str(world)
        children = fork_server.start_ranks(
            "car_case:train_car", world=world, output=str(runs[world]), **options
        )
        for child in children:
            assert child.wait(LIMIT) == 0, child.output()
    assert_same_run(runs[2], runs[1], limit=1e-6)  # logits are float32
    digest = final(runs[1]).state["frozen"]
    assert digest
    assert final(runs[2]).state["frozen"] == digest
    for step in (1, 2, 3):
        drawn = [torch.load(run / f"drawn_{step}.pt") for run in runs.values()]
        torch.testing.assert_close(drawn[1], drawn[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("first", "second"), [(2, 2), (2, 1), (1, 2), (2, 3)])
def test_a_run_goes_on_with_another_number_of_processes(
    tmp_path: Path, fork_server: ForkServer, alone: Path, first: int, second: int
) -> None:
    recipe = changed(RECIPE, sharding="full", save="background" if second == 3 else "foreground")
    train(fork_server, tmp_path / "run", recipe, first, until=2)
    assert_same_run(train(fork_server, tmp_path / "run", recipe, second), alone)


def test_pictures_and_measures_change_nothing_and_are_those_of_one_process(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    # a root that stays gathered would go on training with averaged weights, without a word
    watched = RECIPE | {
        "preview": {"every": 2, "num": 9},
        "evaluation": {"every": 2, "protocol": "quick-pixels", "num": 11},
        "held_out": {"every": 2, "share": 0.2, "num": 6, "strata": 2, "block_size": 3},
    }
    unwatched = RECIPE | {"held_out": {**watched["held_out"], "every": 1000}}
    expected = train(fork_server, tmp_path / "alone", watched, 1)
    found = train(fork_server, tmp_path / "shared", changed(watched, sharding="full"), 2)
    plain = train(fork_server, tmp_path / "plain", changed(unwatched, sharding="full"), 2)
    assert_same_run(found, expected)
    ours, theirs = final(found), final(plain)
    assert all(ours.weights[name].equal(tensor) for name, tensor in theirs.weights.items())
    names = [path.relative_to(expected) for path in sorted(expected.rglob("*.png"))]
    assert len(names) == 2
    assert all((found / name).read_bytes() == (expected / name).read_bytes() for name in names)
    measured = [
        [{k: v for k, v in row.items() if "/" in k} for row in read_metrics(run / "metrics.jsonl")]
        for run in (found, expected)
    ]
    for mine, other in zip(*measured, strict=True):
        assert mine == pytest.approx(other, rel=1e-6)


def test_bytes_of_checkpoints_do_not_depend_on_how_many_hold_the_model(
    tmp_path: Path, fork_server: ForkServer, alone: Path
) -> None:
    # the same state, restored and saved again: the step after would round differently
    recipe, original = changed(RECIPE, sharding="full"), final(alone).path
    for world, shared in ((1, True), (2, True), (3, True), (2, False)):
        output = tmp_path / f"{world}-{shared}"
        children = fork_server.start_ranks(
            "cases:load_and_save",
            world=world,
            run=str(alone),
            output=str(output),
            recipe=recipe,
            shared=shared,
        )
        for child in children:
            assert child.wait(LIMIT) == 0, child.output()
        step = output / "step_00000004"
        assert all((step / part).read_bytes() == (original / part).read_bytes() for part in FILES)
        assert verify_checkpoint(step) == 4
        assert weights_digest(step, "raw") == weights_digest(original, "raw")
        in_rows = world > 1 and shared  # each process wrote its own, and hashed that
        assert (
            len(hashes(step, "model.safetensors")) > world
            if in_rows
            else hashes(step, "model.safetensors") is None
        )
        assert [path.name for path in output.iterdir()] == [step.name]


def hashes(step: Path, name: str) -> list[Any] | None:
    return json.loads((step / "manifest.json").read_bytes())["files"][name].get("segments")


def test_rows_that_are_written_beside_the_steps_are_those_of_the_foreground(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    runs = []
    for save in ("foreground", "background"):
        recipe = changed(RECIPE, sharding="full", save=save, ema_profiles=[0.1, 0.2])
        runs.append(train(fork_server, tmp_path / save, recipe, 2))
    one, other = (sorted((run / "checkpoints").rglob("*.*")) for run in runs)
    assert [path.name for path in one] == [path.name for path in other]
    assert len(one) == 2 * (len(FILES) + 2)
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, other, strict=True))
    assert hashes(final(runs[1]).path, "optimizer.safetensors")
    assert json.loads((runs[1] / "status.json").read_bytes())["state"] == "finished"


def test_a_process_that_is_killed_while_rows_are_written_costs_that_checkpoint_alone(
    tmp_path: Path, fork_server: ForkServer, alone: Path, saving: dict[str, Any]
) -> None:
    run, recipe = tmp_path / "run", changed(RECIPE, sharding="full", collective_timeout=120, **saving)
    first, second = fork_server.start_ranks(
        "cases:train_recipe_and_lose_writer", world=2, output=str(run), recipe=recipe
    )
    assert second.wait(LIMIT) == -9
    assert first.wait(LIMIT) == 1
    assert "process 1 of 2 ended without a word" in first.output()
    assert latest_valid(run / "checkpoints") == run / "checkpoints" / "step_00000002"
    assert_same_run(train(fork_server, run, recipe, 2), alone)
    assert not list((run / "checkpoints").glob(".tmp-*"))


def test_a_value_that_is_no_number_in_one_process_ends_all_and_leaves_no_checkpoint(
    tmp_path: Path, fork_server: ForkServer, saving: dict[str, Any]
) -> None:
    children = fork_server.start_ranks(
        "cases:train_recipe_and_spoil",
        world=2,
        output=str(tmp_path / "run"),
        recipe=changed(RECIPE, sharding="full", **saving),
    )
    assert [child.wait(LIMIT) for child in children] == [5, 5]
    assert all("values that are not finite; no checkpoint was written" in one.output() for one in children)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step_00000002"]


def test_a_full_disk_is_told_by_every_process(
    tmp_path: Path, fork_server: ForkServer, saving: dict[str, Any]
) -> None:
    children = fork_server.start_ranks(
        "cases:train_recipe_with_file_limit",
        world=2,
        output=str(tmp_path / "run"),
        recipe=changed(RECIPE, sharding="full", **saving),
        limit=9000,
    )
    for child in children:
        assert child.wait(LIMIT) == 4, child.output()
        assert "cannot write the checkpoint of" in child.output()
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_rows_are_held_as_the_golden_table_says(tmp_path: Path, fork_server: ForkServer) -> None:
    cases = [case for case in layouts("dim0_shards") if case["world"] == 3]
    rows = [case["rows"] for case in cases]
    children = fork_server.start_ranks("cases:rows_held", world=3, output=str(tmp_path), rows=rows)
    for child in children:
        assert child.wait(LIMIT) == 0, child.output()
    for case in cases:
        held = [torch.load(tmp_path / f"{rank}.pt")[case["rows"]] for rank in range(3)]
        starts = [start for start, count in case["start_and_count"] if count]
        assert [part[0] for part in held if part] == starts
        assert [len(part) for part in held] == [count for _, count in case["start_and_count"]]


def test_one_process_is_told_that_there_is_nobody_to_share_with(caplog: pytest.LogCaptureFixture) -> None:
    assert not is_sharding(TrainConfig(steps=1, batch_size=1, sharding="full"), World.single())
    assert "has no effect with one process" in caplog.text


def test_groups_that_cannot_be_formed_name_those_that_can() -> None:
    config = TrainConfig(steps=1, batch_size=12, sharding="hybrid", shard_size=5)
    with pytest.raises(RecipeError, match="use 2 or 3 or 4 or 6"):
        group_size(config, World(0, 12))
    with pytest.raises(RecipeError, match="sharding: full"):
        group_size(config, World(0, 5))


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(RecipeError, match="ToyModel names no blocks"):
        blocks_of(toy_task().model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sharding": "some"}, "is not one of none, full, hybrid"),
        ({"shard_size": 2}, "is for sharding: hybrid"),
        ({"sharding": "full", "shard_size": 2}, "is for sharding: hybrid"),
        ({"sharding": "full", "precision": "fp16"}, "use precision: bf16"),
    ],
    ids=["unknown", "size-of-none", "size-of-full", "fp16"],
)
def test_settings_that_do_not_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        TrainConfig(steps=1, batch_size=1, **options)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ACCELERATE_USE_FSDP", "true", "ACCELERATE_USE_FSDP is true"),
        ("ACCELERATE_DYNAMO_BACKEND", "inductor", "DYNAMO"),
    ],
    ids=["fsdp", "dynamo"],
)
def test_other_ways_to_shard_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message):
        toy_trainer(tmp_path, sharding="full")
