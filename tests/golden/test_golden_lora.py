"""LoRA files: every layout's changes, and merges by least squares, against recorded ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from golden.manifest import golden_cases, golden_root, golden_tensors, read_golden
from safetensors import safe_open
from torch import Tensor

from genzoo.core.errors import CheckpointError
from genzoo.families.custom_diffusion.lora.changes import Change
from genzoo.families.custom_diffusion.lora.read import is_lora, read_lora
from genzoo.families.custom_diffusion.lora.solve import (
    average,
    merge_changes,
    regression_mean,
    row_factor,
    squares,
)
from genzoo.families.custom_diffusion.merge.algebra import merge_weights

SET, FILE = "concept_editing", "lora_merge"
Case, Tensors = dict[str, Any], dict[str, Tensor]


def layouts() -> list[Case]:
    table = golden_root() / SET / "layouts" / "layouts.json"
    return json.loads(table.read_text())["layouts"] if table.is_file() else []


def base_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The UNet's modules in a file, and the modules of the text encoder that the recorded files change."""
    with safe_open(folder / "base_weights.safetensors", framework="pt") as file:
        names = list(file.keys())
        shapes = {name.removesuffix(".weight"): tuple(file.get_slice(name).get_shape()) for name in names}
    for name in ("k_proj", "out_proj", "q_proj", "v_proj"):
        shapes[f"text_encoder.encoder.layers.0.self_attn.{name}"] = (16, 16)
    return shapes


@pytest.mark.parametrize("case", layouts(), ids=lambda case: case["layout"])
def test_every_layout_is_read_as_recorded_or_refused(case: Case) -> None:
    folder, name = golden_root() / SET / "layouts", case["layout"]
    path = folder / name if (folder / name).is_dir() else folder / f"{name}.safetensors"
    expected = {
        key.removeprefix(f"{name}/").replace("text_encoder.", "text_encoder.encoder."): value
        for key, value in read_golden(folder / "expected_deltas.safetensors").items()
        if key.startswith(f"{name}/")
    }
    assert is_lora(path)
    if not expected:
        with pytest.raises(CheckpointError, match=r"DoRA|3 x 3 convolution"):
            read_lora(path, base_shapes(folder))
        return
    found = read_lora(path, base_shapes(folder)).changes
    # of the files without alpha, the recorded table has the UNet's part alone
    recorded = {name for name in found if name in expected or not name.startswith("text_encoder")}
    assert recorded == expected.keys()
    for module in recorded:
        change = found[module]
        torch.testing.assert_close(
            change.delta, expected[module].double().flatten(1), atol=1e-6, rtol=0, msg=module
        )


def lsq_merge(case: Case, data: Tensors) -> None:
    count = len(case["ranks"])
    changes = [Change(data[f"up{i}"], data[f"down{i}"]) for i in range(count)]
    rows, P = [data[f"X{i}"] for i in range(count)], data["P"]
    weights, strengths = case["weights"], case["strengths"]
    factor = row_factor([*rows, P], [*weights, case["preserve_weight"]], case["lamb"])
    merged = merge_changes(changes, factor=factor, strengths=strengths)
    largest = (data["merged"] - data["W0"]).abs().max()
    assert merged.up is not None
    assert merged.down is not None
    assert merged.rank == sum(case["ranks"])
    for ours, theirs in (
        (data["W0"] + merged.delta, data["merged"]),
        (merged.delta, data["up"] @ data["down"]),
    ):
        assert (ours - theirs).abs().max() <= 1e-9 * largest
    for total, key in (
        (float(count), "residual_share_of_average"),
        (1.0, "residual_share_of_sum"),
    ):
        plain = average(changes, strengths, total=total)
        for i, share in enumerate(case[key]):
            left, needed = squares(plain, changes[i], strengths[i], rows[i])
            assert float((left / needed).sqrt()) == pytest.approx(share, rel=1e-6, abs=1e-7)
    for i, share in enumerate(case["residual_share"]):
        left, needed = squares(merged, changes[i], strengths[i], rows[i])
        assert float((left / needed).sqrt()) == pytest.approx(share, rel=1e-5, abs=1e-9)


def regmean(case: Case, data: Tensors) -> None:
    count = len(case["weights"])
    ours = regression_mean(
        [data[f"W{i}"] for i in range(count)],
        [data[f"X{i}"] for i in range(count)],
        case["weights"],
        off_diagonal=None if case["off_diagonal"] < 0 else case["off_diagonal"],
    )
    assert (ours - data["merged"]).abs().max() <= 1e-9 * data["merged"].abs().max()
    assert (ours - data["merged_official"]).abs().max() <= 1e-6 * data["merged"].abs().max()


def mix_of_show(case: Case, data: Tensors) -> None:
    """The limit of their optimisation is the least change that fits: a merge without regularisation rows."""
    ours = merge_weights(data["W0"], data["X"], data["V"], torch.eye(data["X"].shape[1]))
    largest = (data["limit"] - data["W0"]).abs().max()
    assert (ours - data["limit"]).abs().max() <= 1e-9 * largest
    assert (ours - data["official_500"]).abs().max() <= 1e-6 * largest


CHECKS = {"lsq_merge": lsq_merge, "regmean": regmean, "mix_of_show": mix_of_show}


@pytest.mark.parametrize("case", golden_cases(SET, FILE), ids=lambda case: case["name"])
def test_merges_equal_the_recorded_ones(case: Case) -> None:
    CHECKS[case["kind"]](case, golden_tensors(SET, FILE, case["name"]))
