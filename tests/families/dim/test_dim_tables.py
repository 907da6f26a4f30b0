"""Counting: every printed parameter and Gflop entry of the paper, and the honest numbers beside them."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

from genzoo.families.dim.dit import DiT
from genzoo.families.dim.model import DiM
from genzoo.nn.count import count_model

DIM = {"S": (16, 384), "B": (16, 768), "L": (32, 1024), "XL": (36, 1152)}
DIT = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}

TABLE_4 = [
    ("DiT-XL/2", 256, "343.28"),
    ("DiM-XL/2", 256, "294.58"),
    ("DiT-XL/2", 512, "1371.08"),
    ("DiM-XL/2", 512, "1175.7"),
    ("DiT-XL/2", 1024, "5482.28"),
    ("DiM-XL/2", 1024, "4700.17"),
    ("DiM-XL/2", 2048, "18798.04"),
]
TABLES_5_AND_6 = [
    ("DiM-B/8", "134.82", "3.83"),
    ("DiM-B/4", "134.37", "14.71"),
    ("DiM-B/2", "134.26", "58.23"),
    ("DiM-S/4", "33.71", "3.69"),
    ("DiM-L/4", "473.73", "52.22"),
    ("DiM-XL/4", "673.82", "74.33"),
]
# millions of parameters, label table included, fixed positions not: DiT, DiM with expand 2, with expand 1
HONEST_PARAMS = {
    "S/4": ("32.92", "50.79", "42.44"),
    "B/4": ("130.43", "199.19", "167.16"),
    "L/4": ("457.99", "700.07", "587.41"),
    "XL/4": ("675.00", "994.64", "834.81"),
}
# 10^9 multiply-adds of XL/2, in the same order
HONEST_MACS = {
    256: ("118.62", "182.02", "140.09"),
    512: ("524.54", "727.22", "559.47"),
    1024: ("2909.22", "2908.00", "2237.02"),
    2048: ("24624.18", "11631.13", "8947.19"),
}


@cache
def build(name: str, **options: int) -> nn.Module:
    """A model by its name in the paper, such as DiM-XL/2, without storage."""
    kind, _, rest = name.partition("-")
    size, _, patch = rest.partition("/")
    with torch.device("meta"):
        if kind == "DiM":
            depth, width = DIM[size]
            return DiM(depth=depth, hidden_size=width, patch_size=int(patch), **options)
        depth, width, heads = DIT[size]
        return DiT(depth=depth, hidden_size=width, num_heads=heads, patch_size=int(patch), **options)


def as_printed(value: float, printed: str) -> str:
    """The value with as many digits as the table prints (which drops a final zero)."""
    text = f"{value:.2f}"
    return text.rstrip("0") if len(text) > len(printed) else text


@pytest.mark.parametrize(("name", "image_size", "gflops"), TABLE_4)
def test_table_4_is_reproduced(name: str, image_size: int, gflops: str) -> None:
    count = count_model(build(name), image_size=image_size, paper=True)
    assert as_printed(count["gflops"], gflops) == gflops


@pytest.mark.parametrize(("name", "params", "gflops"), TABLES_5_AND_6)
def test_tables_5_and_6_are_reproduced(name: str, params: str, gflops: str) -> None:
    count = count_model(build(name), image_size=256, paper=True)
    assert (as_printed(count["params"], params), as_printed(count["gflops"], gflops)) == (params, gflops)


@pytest.mark.parametrize("size", HONEST_PARAMS)
def test_honest_parameters(size: str) -> None:
    models = [build(f"DiT-{size}"), build(f"DiM-{size}"), build(f"DiM-{size}", expand=1)]
    assert tuple(f"{count_model(model)['params']:.2f}" for model in models) == HONEST_PARAMS[size]


@pytest.mark.parametrize("image_size", HONEST_MACS)
def test_honest_multiply_adds(image_size: int) -> None:
    options = {"input_size": image_size // 8}
    models = [
        build("DiT-XL/2", **options),
        build("DiM-XL/2", **options),
        build("DiM-XL/2", expand=1, **options),
    ]
    counts = [count_model(model) for model in models]
    assert tuple(f"{count['gflops']:.2f}" for count in counts) == HONEST_MACS[image_size]
    assert [count["macs_attention"] > 0 for count in counts] == [True, False, False]
    assert [count["macs_scan"] > 0 for count in counts] == [False, True, True]


def test_the_paper_count_leaves_out_the_mixer() -> None:
    """Twice the inner width, twice the states: the printed numbers do not move, the honest ones do."""
    small, large = build("DiM-S/4"), build("DiM-S/4", expand=4, d_state=32)
    assert count_model(small, paper=True) == count_model(large, paper=True)
    assert count_model(large)["params"] > 1.3 * count_model(small)["params"]


def test_the_released_dit_has_675_million_entries() -> None:
    count = count_model(build("DiT-XL/2"))
    assert f"{count['num_params'] / 1e6:.2f}" == "675.13"
    assert count["params_fixed"] == 256 * 1152


def test_one_class_token_more_would_show_in_the_table() -> None:
    count = count_model(build("DiM-XL/2", cls_token=True), image_size=256, paper=True)
    assert f"{count['gflops']:.2f}" == "295.73"
