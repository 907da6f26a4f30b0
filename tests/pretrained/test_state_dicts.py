"""Weights are found under every wrapper, in any order and nesting, or the choice is left to the user."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genzoo.api.recipes.models import create_model
from genzoo.api.runs.conversion import convert
from genzoo.core.errors import CheckpointError, WeightsError
from genzoo.core.registry import CONVERTERS
from genzoo.pretrained.loading import load_module, load_state
from genzoo.pretrained.recognise import recognise
from genzoo.pretrained.state_dicts import find_part, find_parts, narrowed

WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "model.", "ema_model.", "net.")
NESTS = ((), ("state_dict",), ("ema",), ("checkpoint", "model"), ("a", "b", "shadow", "model"))


def wrapped(state: dict[str, Tensor], prefixes: tuple[str, ...], nest: tuple[str, ...]) -> dict[str, Any]:
    tree: dict[str, Any] = {"".join(prefixes) + name: value for name, value in state.items()}
    for name in reversed(nest):
        tree = {name: tree, "epoch": 3, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}
    return tree


def small_dit() -> nn.Module:
    torch.manual_seed(0)
    return create_model(
        "dit_s8", depth=1, hidden_size=24, num_heads=2, num_classes=3, input_size=16, in_channels=3
    )


STATES: dict[str, dict[str, Tensor]] = {
    "dit": dict(small_dit().state_dict()),
    "latte": dict(create_model("latte_s", depth=2, hidden_size=24, num_heads=2, num_classes=3,
                               num_frames=2, input_size=4).state_dict()),
}  # fmt: skip


@pytest.mark.parametrize("nest", NESTS, ids=".".join)
@pytest.mark.parametrize("layout", STATES)
def test_every_order_of_wrappers_is_recognised(layout: str, nest: tuple[str, ...]) -> None:
    state = STATES[layout]
    for prefixes in itertools.permutations(WRAPPERS, 3):
        tree = wrapped(state, prefixes, nest)
        assert recognise(tree, "file.pt") == layout
        found = CONVERTERS.get(layout)().to_genzoo(tree, num_heads=2).weights
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], value) for name, value in state.items()), prefixes


def test_wrappers_inside_names_go_too() -> None:
    state = STATES["dit"]
    inner = {
        name.replace("blocks.0.", "blocks.0._fsdp_wrapped_module._orig_mod."): v for name, v in state.items()
    }
    assert CONVERTERS.get("dit")().to_genzoo(inner, num_heads=2).weights.keys() == state.keys()


@pytest.mark.parametrize("prefixes", list(itertools.permutations(WRAPPERS, 2)), ids="".join)
def test_a_frozen_network_is_filled_from_wrapped_weights(tmp_path: Path, prefixes: tuple[str, ...]) -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    torch.save(wrapped(module.state_dict(), prefixes, ("state_dict",)), tmp_path / "w.pt")
    other = load_module(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), tmp_path / "w.pt")
    assert torch.equal(other[0].weight, module[0].weight)


def test_averaged_weights_are_taken_among_several() -> None:
    state = STATES["dit"]
    raw = {name: value + 1 for name, value in state.items()}
    for tree in (
        {"model": raw, "ema": state},
        {"state_dict": raw, "state_dict_ema": state},
        {
            **{f"online_model.{n}": v for n, v in raw.items()},
            **{f"ema_model.{n}": v for n, v in state.items()},
        },
        {"model": {"module": raw}, "averages": {"shadow": state}},
    ):
        found = find_part(tree, ["pos_embed", "x_embedder.proj.weight"])
        assert found is not None
        assert torch.equal(found.weights["x_embedder.proj.weight"], state["x_embedder.proj.weight"])


def test_several_without_an_average_are_refused_with_the_choices(tmp_path: Path) -> None:
    state = STATES["dit"]
    other = {name: value + 1 for name, value in state.items()}
    tree = {"first": {"model": state}, "second": {f"module.{n}": v for n, v in other.items()}}
    torch.save(tree, tmp_path / "two.pt")
    with pytest.raises(
        WeightsError, match=r"(?s)2 sets of such weights.*first\.model, second\.module.*part=NAME"
    ):
        convert(tmp_path / "two.pt", tmp_path / "run", arguments={"num_heads": 2})
    for part, expected in (("first.model", state), ("second.module", other)):
        run, _ = convert(
            tmp_path / "two.pt", tmp_path / part, arguments={"num_heads": 2, "part": part},
            overrides=["data.root=nowhere", "codec=null"],
        )  # fmt: skip
        assert torch.equal(
            run.weights().weights["final_layer.linear.bias"], expected["final_layer.linear.bias"]
        )
    with pytest.raises(WeightsError, match=r"no part 'thrid'"):
        narrowed(tree, "thrid")


def test_the_same_weights_twice_are_no_choice() -> None:
    state = STATES["dit"]
    copies = {name: value.clone() for name, value in state.items()}
    assert find_part({"model": state, "best": copies}, ["pos_embed"]) is not None


def test_what_lies_beside_is_not_part_of_it() -> None:
    state = STATES["dit"]
    tree = {"state_dict": {**{f"model.{n}": v for n, v in state.items()}, "loss.weight": torch.ones(2)}}
    (part,) = find_parts(tree, ["pos_embed"])
    assert part.path == "state_dict.model"
    assert part.weights.keys() == state.keys()
    assert part.names["pos_embed"] == "state_dict.model.pos_embed"


def test_names_nobody_knows_are_listed_as_before(tmp_path: Path) -> None:
    torch.save({"state_dict": {"module.a.weight": torch.ones(2)}}, tmp_path / "w.pt")
    assert load_state(tmp_path / "w.pt").keys() == {"a.weight"}
    with pytest.raises(CheckpointError, match=r"missing .*weight"):
        load_module(nn.Linear(2, 2), tmp_path / "w.pt")
