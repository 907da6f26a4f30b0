"""Positions on maps of another shape: linear ones stay linear, and a VAR begins with those of another."""

from __future__ import annotations

import torch
from families.car.tiny import tiny_var
from torch import Tensor

from genzoo.families.car.var.positions import resized_positions, square_sides
from genzoo.nn.warm_start import warm_start

SQUARES, PAIRS = [1, 2, 4], [1, [1, 2], [2, 6]]


def ramp(sizes: list[tuple[int, int]]) -> Tensor:
    """(1, l, 2): rows and columns of cell centres, from 0 to 1 over each map."""
    maps = []
    for height, width in sizes:
        rows = ((torch.arange(height) + 0.5) / height)[:, None].expand(height, width)
        columns = ((torch.arange(width) + 0.5) / width)[None].expand(height, width)
        maps.append(torch.stack([rows, columns], dim=-1).flatten(0, 1))
    return torch.cat(maps)[None]


def test_the_same_maps_keep_their_bits() -> None:
    table = torch.randn(1, 21, 5, generator=torch.Generator().manual_seed(0))
    sizes = [(1, 1), (2, 2), (4, 4)]
    assert torch.equal(resized_positions(table, sizes, sizes), table)


def test_what_is_linear_in_place_stays_so_between_the_outer_centres() -> None:
    made = resized_positions(ramp([(1, 1), (4, 4)]), [(1, 1), (4, 4)], [(1, 1), (6, 3)])
    wanted = ramp([(1, 1), (6, 3)]).clamp(0.125, 0.875)  # beyond the outermost centres nothing is known
    torch.testing.assert_close(made, wanted)


def test_the_shape_is_told_by_squares_alone() -> None:
    assert square_sides(torch.tensor([[0, 1, 1, 1, 1]])) == [(1, 1), (2, 2)]
    assert square_sides(torch.tensor([[0, 1, 1, 1]])) is None
    assert square_sides(None) is None


def test_a_var_on_other_maps_begins_with_resized_positions() -> None:
    model, weights = tiny_var(patch_nums=PAIRS), dict(tiny_var(patch_nums=SQUARES, seed=2).state_dict())
    fates = {fate.target: fate for fate in warm_start(model, weights) if fate.target}
    sizes = [(1, 1), (1, 2), (2, 6)]
    assert torch.equal(model.pos_1LC, resized_positions(weights["pos_1LC"], [(1, 1), (2, 2), (4, 4)], sizes))
    assert "resized from (1, 21, 24)" in fates["pos_1LC"].why
    assert torch.equal(model.word_embed.weight, weights["word_embed.weight"])
    assert model.lvl_1L.flatten().tolist() == [0, 1, 1, *[2] * 12]


def test_another_number_of_scales_leaves_positions_as_they_were() -> None:
    model, weights = tiny_var(patch_nums=PAIRS), dict(tiny_var(patch_nums=[1, 4], seed=2).state_dict())
    before = model.pos_1LC.detach().clone()
    fates = {fate.target: fate for fate in warm_start(model, weights) if fate.target}
    assert torch.equal(model.pos_1LC, before)
    assert fates["pos_1LC"].source is None
