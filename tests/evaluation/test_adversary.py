"""A fake set with the moments of the real one: which measures it deceives, and which find it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from genzoo.evaluation.evaluate_images import Settings, evaluate
from genzoo.evaluation.features import FeatureNetwork
from genzoo.evaluation.intervals.estimate import Uncertainty
from genzoo.evaluation.measures.frechet import frechet_of_rows
from genzoo.evaluation.measures.jedi import jedi
from genzoo.evaluation.measures.mind import mind, mind_floor
from genzoo.evaluation.measures.mmd import cmmd, unit_rows
from genzoo.evaluation.measures.neighbourhoods import neighbourhoods
from genzoo.evaluation.measures.vendi import vendi_score
from genzoo.evaluation.protocols import Protocol
from genzoo.evaluation.scores import PLAIN_NAMES, outputs_needed
from genzoo.evaluation.scoring.frechet import _at_infinity
from genzoo.evaluation.statistics import Gaussian

N, D = 400, 12


def clusters(seed: int) -> Tensor:
    """Real pictures: eight tight clusters."""
    random = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(8, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    which = torch.randint(0, 8, (N,), generator=random)
    return centres[which] + 0.3 * torch.randn(N, D, generator=random, dtype=torch.float64)


def moment_matched(real: Tensor) -> Tensor:
    """Gaussian noise with exactly the mean and the covariance of the real rows."""
    noise = torch.randn(len(real), D, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    noise = noise - noise.mean(0)
    white = noise @ torch.linalg.inv(torch.linalg.cholesky(noise.T.cov())).T
    return white @ torch.linalg.cholesky(real.T.cov()).T + real.mean(0)


@pytest.fixture(scope="module")
def sets() -> dict[str, Tensor]:
    real = clusters(0)
    return {"real": real, "honest": clusters(1), "fake": moment_matched(real)}


def test_moments_are_deceived_by_the_fake(sets) -> None:
    real, honest, fake = sets["real"], sets["honest"], sets["fake"]
    assert abs(frechet_of_rows(fake, real)) < 1e-6 < frechet_of_rows(honest, real)
    assert jedi(fake, real) < 1e-9 < jedi(honest, real)


def test_cmmd_prefers_the_fake_to_honest_draws(sets) -> None:
    """It sees the mean of embeddings only: a limit to know, not an aim."""
    unit = {name: unit_rows(rows) for name, rows in sets.items()}
    assert cmmd(unit["fake"], unit["real"]) < cmmd(unit["honest"], unit["real"])


def test_recall_and_vendi_do_not_object_to_the_fake(sets) -> None:
    real, honest, fake = sets["real"], sets["honest"], sets["fake"]
    assert neighbourhoods(fake, real).recall > 0.8
    assert vendi_score(fake) > 0.9 * vendi_score(honest)


def test_mind_above_its_floor_and_coverage_find_the_fake(sets) -> None:
    real, honest, fake = sets["real"], sets["honest"], sets["fake"]
    floor = mind_floor(real)
    assert mind(fake, real) > 2 * floor
    assert mind(honest, real) < 2 * floor
    found = neighbourhoods(fake, real)
    assert max(found.coverage, found.precision, found.density) < 0.1
    assert neighbourhoods(honest, real).coverage > 0.9


def told(name: str = "told", label: str = "told", own: tuple[str, ...] = ()) -> FeatureNetwork:
    """Rows are written into the first pixels of each picture, as uint8 levels."""

    def extract(pictures: Tensor) -> dict[str, Tensor]:
        return {"pool": pictures.flatten(1)[:, :D].float() / 16 - 8}

    return FeatureNetwork(name, extract, ("pool",), "as written", label, None, None, "0" * 64, own=own)


def as_pictures(rows: Tensor) -> np.ndarray:
    levels = ((rows + 8) * 16).round().clamp(0, 255).to(torch.uint8)
    canvas = torch.zeros(len(rows), 3, 2, 2, dtype=torch.uint8)
    canvas.view(len(rows), -1)[:] = levels
    return canvas.movedim(1, -1).numpy().copy()


METRICS = {
    "frechet": {},
    "fdd": {},
    "kid_all": {},
    "cmmd": {},
    "mind": {"directions": 100},
    "prdc": {"k": 5, "num": 300, "reference_num": 350},
    "vendi": {"num": 200},
}


def protocol(**changes) -> Protocol:
    fields = {"name": "all", "about": "", "source": "", "kind": "images", "network": "told", "num": N}
    return Protocol(**{**fields, "metrics": METRICS, **changes})


def judged(sets, name: str = "fake", **settings):
    return evaluate(
        as_pictures(sets[name]),
        protocol=protocol(),
        reference=as_pictures(sets["real"]),
        network=told(**settings.pop("network", {})),
        settings=Settings(cache=False, **settings),
    )


def test_every_measure_is_in_a_result_with_its_interval_and_method(sets) -> None:
    result = judged(sets)
    assert result.metrics["told_coverage"] < 0.1
    assert result.metrics["told_mind"] > 2 * result.metrics["told_mind_floor"]
    methods = {name: one["method"] for name, one in result.intervals.items()}
    assert methods["told_frechet"] == "influence function"
    assert methods["told_kid_all"] == methods["told_gaussian_mmd"] == "U-statistic"
    assert methods["told_precision"] == "Wilson"
    assert methods["told_coverage"] == methods["told_mind"] == "half-samples, 50"
    assert methods["told_vendi"] == "half-samples, 20"
    for name, one in result.intervals.items():
        if one["low"] is not None:
            assert one["low"] <= result.metrics[name] <= one["high"], name
            assert one["level"] == 0.95
    assert result.intervals["told_coverage"]["seed"] == 0
    assert len(result.terms["told_frechet"]) == N
    assert len(result.terms["told_precision"]) == 300


def test_numbers_are_the_same_without_intervals(sets) -> None:
    plain = judged(sets, intervals=None)
    assert plain.metrics == judged(sets).metrics
    assert not [one for one in plain.intervals.values() if one["low"] is not None]
    assert not plain.terms


def test_a_published_name_stays_with_its_network_only(sets) -> None:
    of_other = judged(sets).metrics
    assert "fdd" not in of_other
    own = judged(sets, network={"own": ("fdd", "cmmd")}).metrics
    assert {"fdd", "cmmd", "cmmd_unbiased", "told_mind", "told_frechet"} <= own.keys()
    assert set(PLAIN_NAMES) > {"fdd", "cmmd", "jedi"}


def test_infinity_is_given_by_option_and_says_how(sets) -> None:
    found = judged(sets, "honest", intervals=Uncertainty(infinity="jackknife"))
    assert found.intervals["told_frechet_infinity"]["method"] == "jackknife, 20 groups"
    assert found.metrics["told_frechet_infinity"] < found.metrics["told_frechet"]
    line = judged(sets, "honest", intervals=Uncertainty(infinity="line"))
    assert "no interval" in line.intervals["told_frechet_infinity_line"]["method"]


@pytest.mark.parametrize(
    ("count", "said"), [(200, "jackknife, 20 groups"), (50, "unsure, 0.24 dim"), (16, "")]
)
def test_infinity_says_when_it_is_unsure_and_is_silent_when_it_is_lost(count: int, said: str) -> None:
    reference = Gaussian(torch.zeros(D, dtype=torch.float64), torch.eye(D, dtype=torch.float64))
    found = _at_infinity("fid", clusters(1)[:count], reference, Uncertainty(infinity="jackknife"), 1)
    if not said:
        assert found == {}
        return
    assert said in found["fid_infinity"].method
    assert ("unsure" in found["fid_infinity"].method) == ("unsure" in said)
    assert found["fid_infinity"].low >= 0


def test_rows_of_frechet_distances_are_kept_for_intervals_only() -> None:
    assert outputs_needed({"fid": {}, "sfid": {}}) == ({"pool", "spatial"}, set())
    assert outputs_needed({"fid": {}}, intervals=True) == ({"pool"}, {"pool"})
