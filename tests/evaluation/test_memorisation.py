"""Nearest neighbours and copies."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from genzoo.core.errors import DataError, ShapeError
from genzoo.core.node import node_of
from genzoo.core.registry import DATASETS
from genzoo.data.picture_sets import DatasetPictures
from genzoo.evaluation.measures.nearest import nearest
from genzoo.evaluation.memorisation import calibrated, memorisation, report_memorisation


def draw(n: int, d: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@given(block=st.integers(1, 40), k=st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_blocks_find_the_same_neighbours(block: int, k: int) -> None:
    queries, reference = draw(17), draw(31, seed=1)
    distances = torch.cdist(queries, reference, compute_mode="donot_use_mm_for_euclid_dist")
    expected = distances.topk(k, largest=False)
    found = nearest(queries, reference, k=k, block=block)
    assert torch.equal(found.indices, expected.indices)
    torch.testing.assert_close(found.distances, expected.values)


def test_copies_are_found_and_fresh_draws_are_not_blamed() -> None:
    real = draw(400)
    assert memorisation(real[:50] + 1e-4, real) == pytest.approx(
        {"nearest_ratio": 0.0, "copies": 1.0, "exact_copies": 0.0}, abs=1e-3
    )
    fresh = memorisation(draw(200, seed=1), real)
    assert fresh["nearest_ratio"] == pytest.approx(1.0, abs=0.1)
    assert fresh["copies"] < 0.05
    assert memorisation(real[:20], real)["exact_copies"] == 1.0


def test_the_share_of_copies_is_the_share_that_was_copied() -> None:
    real = draw(300)
    half = torch.cat([real[:30], draw(30, seed=9) + 5])
    assert memorisation(half, real)["copies"] == pytest.approx(0.5)


def test_bad_sets_are_refused() -> None:
    with pytest.raises(ShapeError):
        nearest(draw(3), draw(3, d=4))
    with pytest.raises(DataError, match="need as many"):
        nearest(draw(3), draw(2), k=3)
    with pytest.raises(DataError, match="exact twin"):
        memorisation(draw(3), torch.ones(6, 6))


def test_held_out_images_calibrate_distances() -> None:
    real, held_out = draw(500), draw(300, seed=2)
    fresh = calibrated(draw(200, seed=1), real, held_out)
    assert fresh["calibrated_ratio"] == pytest.approx(1, abs=0.1)
    assert fresh["calibrated_below"] < 0.05
    assert abs(fresh["copying_z"]) < 3
    assert 55 < fresh["authpct"] < 85
    half = torch.cat([real[:100] + 1e-3, draw(100, seed=3)])
    copied = calibrated(half, real, held_out)
    assert copied["calibrated_below"] >= 0.5
    assert copied["copying_z"] < -3
    assert copied["authpct"] < 50
    far = calibrated(draw(200, seed=1) + 9, real, held_out)
    assert far["authpct"] > 95  # bad, and no copies: it proves nothing
    assert far["copying_z"] > 3


def test_held_out_images_that_were_trained_on_measure_nothing() -> None:
    real = draw(50)
    with pytest.raises(DataError, match="half of the held-out images lie in the training set"):
        calibrated(draw(30, seed=1), real, real[:20])


class Copier:
    """A run that samples its training digits again, and knows a test split."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.plan = folder, SimpleNamespace(data=node_of({"name": "digits", "split": "train"}))

    def dataset(self):
        return DATASETS.get("digits")(split="train")

    def sample(self, *, num: int, seed: int = 0):
        pictures = DatasetPictures(self.dataset())
        rows = [torch.from_numpy(pictures.read(index)) for index in range(num)]
        return SimpleNamespace(images=torch.stack(rows).movedim(-1, 1))


def test_the_report_of_a_model_that_copies_accuses_it_and_shows_the_pairs(tmp_path: Path) -> None:
    found = report_memorisation(Copier(tmp_path), num=40, against={"split": "test"}, pairs=3)
    assert found["exact_copies"] == found["calibrated_below"] == 1
    assert found["calibrated_ratio"] == found["authpct"] == 0
    assert found["copying_z"] < -3
    levels = np.asarray(Image.open(found["nearest"]).convert("L")).astype(int)
    above, below = levels[: len(levels) // 2], levels[-(len(levels) // 2) :]
    assert np.array_equal(above, below)  # each sample above its twin
