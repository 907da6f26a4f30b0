"""Variables of launchers that would change a run are refused by name; WORLD_SIZE alone is explained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toys import toy_trainer

from genzoo.core.checkpoint import load_checkpoint
from genzoo.core.errors import UsageError
from genzoo.core.processes import LAUNCHED, World, connected
from genzoo.training.config import TrainConfig
from genzoo.training.launcher import REFUSED, refuse_other_ways


@pytest.mark.parametrize(
    ("name", "value", "fix"),
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "train.micro_batch_size"),
        ("ACCELERATE_DYNAMO_BACKEND", "EAGER", "--dynamo_backend no"),
        ("ACCELERATE_USE_FSDP", "true", "train.sharding: full"),
        ("ACCELERATE_USE_DEEPSPEED", "1", "torchrun"),
        ("ACCELERATE_USE_MEGATRON_LM", "true", "torchrun"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true", "torchrun"),
        ("ACCELERATE_MIXED_PRECISION", "bf16", "train.precision=bf16"),
        ("ACCELERATE_MIXED_PRECISION", "fp8", "--mixed_precision no"),
    ],
)
def test_a_variable_that_changes_arithmetic_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, fix: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"{name} is {value}") as caught:
        toy_trainer(tmp_path / "run")
    assert fix in str(caught.value.fix)
    assert not (tmp_path / "run").exists()


def test_what_accelerate_launch_sets_by_default_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = toy_trainer(tmp_path / "plain").fit()
    for variable in REFUSED:
        monkeypatch.setenv(variable.name, "false")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    launched = toy_trainer(tmp_path / "launched").fit()
    assert plain.checkpoint is not None
    assert launched.checkpoint is not None
    one, other = load_checkpoint(plain.checkpoint), load_checkpoint(launched.checkpoint)
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


def test_a_precision_that_both_ask_for_is_no_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    refuse_other_ways(TrainConfig(steps=1, batch_size=1, precision="bf16"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "RANK, MASTER_ADDR, MASTER_PORT are not set"),
        ({"RANK": "1", "MASTER_ADDR": "127.0.0.1"}, "MASTER_PORT is not set"),
        ({"RANK": "x", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}, "RANK or WORLD_SIZE is no number"),
    ],
    ids=["alone", "no port", "no number"],
)
def test_world_size_without_the_rest_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], told: str
) -> None:
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    for name, value in {"WORLD_SIZE": "2", **given}.items():
        monkeypatch.setenv(name, value)

    def explained() -> None:
        assert caught.value.why == told
        assert "torchrun" in str(caught.value.fix)

    with pytest.raises(UsageError, match="WORLD_SIZE is '2'") as caught, connected():
        pass
    if given.get("RANK") == "1":
        explained()
    with pytest.raises(UsageError, match="WORLD_SIZE is '2'") as caught:
        toy_trainer(tmp_path / "run")
    explained()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert World.current() == World.single()
