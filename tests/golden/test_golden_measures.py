"""Measures of features against other people's code and against independent float64 arithmetic."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
import torch
from golden.manifest import golden_cases, golden_root, golden_tensors
from torch import Tensor

from genzoo.evaluation.measures.copying import authentic, copying_test, mann_whitney_z
from genzoo.evaluation.measures.frechet import frechet_distance, frechet_of_rows
from genzoo.evaluation.measures.inception_score import inception_score_adm
from genzoo.evaluation.measures.infinity import infinity_by_line, sizes_of_line, value_at_infinity
from genzoo.evaluation.measures.jedi import jedi
from genzoo.evaluation.measures.kid import kernel_distance, polynomial_mmd
from genzoo.evaluation.measures.mind import mind
from genzoo.evaluation.measures.mmd import cmmd, cubic, gaussian, kernel_sums, kid_of_all_rows, unit_rows
from genzoo.evaluation.measures.nearest import nearest
from genzoo.evaluation.measures.neighbourhoods import neighbourhoods
from genzoo.evaluation.measures.precision_recall import precision_recall
from genzoo.evaluation.measures.vendi import vendi_score
from genzoo.evaluation.statistics import FeatureStatistics

SET = "evaluation"
if not (golden_root() / SET / "manifest.json").is_file():
    pytest.skip("this folder of golden sets has no measures", allow_module_level=True)
FEATURES = {case["name"]: case for case in golden_cases(SET, "features")}
ADVERSARY, BLIND, MOMENTS = (golden_cases(SET, key) for key in ("adversary", "blind", "moments"))
PAIRS = [name for name, case in FEATURES.items() if {"generated", "real"} <= set(case["keys"])]


def features(name: str) -> dict[str, Tensor]:
    return golden_tensors(SET, "features", name)


def drawn_by_dgm_eval(config: dict[str, Any]) -> dict[str, Any]:
    return {key: config["kid"][key] for key in ("subsets", "subset_size", "seed")}


def gaussian_of(rows: Tensor, ddof: int = 1):
    statistics = FeatureStatistics()
    statistics.update(rows)
    return statistics.gaussian(ddof=ddof)


def frechet(generated: Tensor, real: Tensor, ddof: int = 1) -> float:
    a, b = gaussian_of(generated, ddof), gaussian_of(real, ddof)
    return frechet_distance(a.mean, a.covariance, b.mean, b.covariance)


def balls(x: Tensor, y: Tensor, k: int, rim: bool) -> dict[str, float]:
    found = neighbourhoods(x, y, k=k, rim=rim, rows=50, columns=70)
    whole = neighbourhoods(x, y, k=k, rim=rim)
    for name in ("inside", "counts", "covered", "recalled"):
        assert torch.equal(getattr(found, name), getattr(whole, name))
    names = ("precision", "recall") if rim else ("precision", "recall", "density", "coverage")
    return {name: getattr(found, name) for name in names}


def recompute(name: str, x: Tensor, y: Tensor, config: dict[str, Any]) -> Any:
    """The number that the manifest calls `name`, of x against y; KeyError for one that is not known."""
    if name in ("fd_by_rows", "fd_torch_fidelity", "fd_clean_fid") or name.startswith("fd_dgm_eval"):
        return frechet_of_rows(x, y)
    if name in ("fd", "fd_ddof0"):
        ddof = 0 if name.endswith("0") else 1
        return frechet_of_rows(x, y, ddof=ddof) if x.shape[1] > 500 else frechet(x, y, ddof)
    if match := re.fullmatch(r"kid_(torch_fidelity|clean_fid)(_mean|_std)?", name):
        # clean-fid's mean is torch-fidelity's: subsets of the same draws
        found = kernel_distance(x, y, **drawn_by_dgm_eval(config))
        return found.std if match[2] == "_std" else found.mean
    if match := re.fullmatch(r"kd_dgm_eval_(mean|std)", name):
        swapped = kernel_distance(y, x, **drawn_by_dgm_eval(config))  # it draws the reference first
        return getattr(swapped, match[1])
    if name.startswith("kid_all_rows_"):
        return getattr(kernel_sums(x, y, cubic, block=37), name.rpartition("_")[2])()
    if name == "kid_biased_torch_fidelity":
        return polynomial_mmd(x, y, estimator="biased")
    if name == "jedi":
        return jedi(x, y)
    if match := re.fullmatch(r"mind_M(\d+)_seed(\d+)", name):
        return mind(x, y, directions=int(match[1]), seed=int(match[2]))
    if name == "mind":
        return mind(x, y)
    if match := re.fullmatch(r"(prdc|pr_torch_fidelity)_k(\d+)", name):
        return balls(x, y, int(match[2]), rim=match[1] != "prdc")
    if match := re.fullmatch(r"vendi_q(inf|[\d.]+)(_dual)?", name):
        return vendi_score(x, q=float(match[1]))
    if name == "vendi_dgm_eval_polynomial":
        return vendi_of_the_cubic_kernel(x)
    if name.startswith("authpct"):
        return 100 * float(authentic(x, y).double().mean())
    if name == "exact_copies":
        return float((nearest(x, y).distances[:, 0] == 0).double().mean())
    if name == "nearest_index":
        return [first_twin(y, index) for index in nearest(x, y).indices[:, 0].tolist()]
    if name in ("cmmd_float32", "cmmd_float64", "cmmd_not_normalised"):
        return cmmd(x, y)
    if name == "cmmd_unit_rows":
        return cmmd(unit_rows(x.double()), unit_rows(y.double()))
    if name == "cmmd_unbiased":
        return 1000 * kernel_sums(x, y, gaussian(), block=29).unbiased()
    if name == "cmmd_self":
        return cmmd(x, x)
    if name == "leading_term_10_times_squared_mean_difference":
        return 10 * float((x.mean(0) - y.mean(0)).square().sum())
    raise KeyError(f"no implementation for the golden result {name!r}")


def first_twin(rows: Tensor, index: int) -> int:
    """The first row equal to this one: which of several equal rows is nearest is nobody's business."""
    return int((rows == rows[index]).all(1).nonzero()[0])


def vendi_of_the_cubic_kernel(x: Tensor) -> float:
    from genzoo.evaluation.measures.vendi import vendi_of_eigenvalues

    rows = unit_rows(x.double())  # and no unit diagonal, says the specification of the set
    return vendi_of_eigenvalues(torch.linalg.eigvalsh(cubic(rows, rows) / len(x)))


def close(name: str, traces: float, second: bool) -> dict[str, float]:
    """Tolerances of the manifest; `second` computations are float64, what was run may be float32."""
    if name.startswith("fd"):
        return {"rel": 0, "abs": 1e-9 * traces}
    if name.startswith("mind"):
        return {"rel": 1e-10 if second else 2e-6, "abs": 1e-12}
    if name == "cmmd_float32":
        return {"rel": 0, "abs": 5e-4}
    if name.startswith(("cmmd", "leading")):
        return {"rel": 0, "abs": 1e-10}
    if name.startswith("vendi"):
        return {"rel": 1e-6 if "0.5" in name else 1e-9}
    # counts over n; torch-fidelity and dgm-eval say them in float32
    return (
        {"rel": 1e-7, "abs": 1e-12}
        if not name.startswith(("kid", "kd", "jedi"))
        else {"rel": 1e-10, "abs": 1e-12}
    )


def check(found: dict[str, Any], x: Tensor, y: Tensor, config: dict[str, Any], *, second: bool) -> None:
    assert found
    traces = float(x.double().var(0).sum() + y.double().var(0).sum())
    for name, expected in found.items():
        tolerance = close(name, traces, second)
        assert recompute(name, x, y, config) == pytest.approx(expected, **tolerance), name


@pytest.mark.parametrize("name", [name for name in PAIRS if name != "lowrank"])
@pytest.mark.parametrize("which", ["results", "second_computation"])
def test_measures_of_golden_features(name: str, which: str) -> None:
    case, tensors = FEATURES[name], features(name)
    expected = dict(case[which])
    other = {key: expected.pop(key) for key in list(expected) if key == "cmmd_not_normalised"}
    check(expected, tensors["generated"], tensors["real"], case["config"], second=which != "results")
    for key, value in other.items():  # the manifest's note: small/real against small/generated
        small = features("small")
        assert recompute(key, small["real"], small["generated"], {}) == pytest.approx(value, abs=1e-10)


@pytest.mark.parametrize("which", ["results", "second_computation"])
def test_measures_of_fewer_rows_than_dimensions(which: str) -> None:
    case, tensors = FEATURES["lowrank"], features("lowrank")
    # eigenvalues of the unsymmetric product are roots of rounding noise there: 4e-6, says the manifest
    expected = {
        name: value
        for name, value in case[which].items()
        if not (which == "results" and name.startswith("fd_"))
    }
    check(expected, tensors["generated"], tensors["real"], case["config"], second=which != "results")


def test_a_set_against_itself() -> None:
    case, real = FEATURES["identical"], features("small")["real"]
    check(case["results"], real, real, {}, second=False)
    check(case["second_computation"], real, real, {}, second=True)


def test_copying_in_cells_and_as_a_whole() -> None:
    case, cells, small = FEATURES["data_copying"], features("data_copying"), features("small")
    x, real, test = small["generated"], small["real"], small["test"]
    labels = tuple(cells[f"cells_{name}"] for name in ("generated", "real", "test"))
    copies = nearest(real[:100] + 0.001, real).distances[:, 0]
    ours, unseen = (nearest(rows, real).distances[:, 0] for rows in (x, test))
    found = {
        "zu": mann_whitney_z(ours, unseen),
        "c_t": copying_test(x, real, test, cells=labels),
        "zu_of_copies": mann_whitney_z(copies, unseen),
    }
    assert copying_test(x, real, test) == pytest.approx(found["zu"])
    for expected in (case["results"], case["second_computation"]):
        assert found == pytest.approx(expected, abs=1e-12)


def test_lines_to_infinity() -> None:
    case, tensors, small = FEATURES["infinity"], features("infinity"), features("small")
    expected, sizes = case["second_computation"], case["config"]["sizes"]
    subsets = [row[row >= 0].long() for row in tensors["subsets"]]
    of_rows = lambda rows: frechet_of_rows(rows, small["real"])  # noqa: E731
    values = [of_rows(small["generated"][subset]) for subset in subsets]
    assert values == pytest.approx(expected["fd_at_sizes"], rel=1e-9)
    assert value_at_infinity(sizes, values) == pytest.approx(expected["fd_infinity_dgm_eval"], rel=1e-8)
    assert sizes_of_line(len(small["generated"])) == sizes
    drawn = infinity_by_line(small["generated"], of_rows, seed=77)
    assert drawn == pytest.approx(case["results"]["fd_infinity_dgm_eval"], rel=1e-8)
    of_classes = lambda rows: inception_score_adm(rows, split_size=len(rows)).mean  # noqa: E731
    for seed, smallest, rows, measure, name in (
        (11, 50, small["generated"], of_rows, "fid_infinity_fid_is_infinity"),
        (13, 60, tensors["probabilities"], of_classes, "is_infinity_fid_is_infinity"),
    ):
        subsets = shuffled_subsets(len(rows), sizes_of_line(len(rows), smallest=smallest), seed)
        found = infinity_by_line(rows, measure, subsets=subsets)
        assert found == pytest.approx(expected[name], rel=1e-8)
        assert found == pytest.approx(case["results"][name], rel=1e-8)
    assert of_classes(tensors["probabilities"]) == pytest.approx(expected["is_at_all"], rel=1e-8)


def shuffled_subsets(count: int, sizes: list[int], seed: int) -> list[Tensor]:
    """As FID_IS_infinity draws them: one array, shuffled in place again before each size."""
    import numpy as np

    random, order = np.random.RandomState(seed), np.arange(count)
    subsets = []
    for size in sizes:
        random.shuffle(order)
        subsets.append(torch.from_numpy(order[:size].copy()))
    return subsets


@pytest.mark.parametrize("case", ADVERSARY, ids=lambda case: case["name"])
@pytest.mark.parametrize("which", ["results", "second_computation"])
def test_measures_of_moment_matched_sets(case, which: str) -> None:
    tensors = golden_tensors(SET, "adversary", case["name"])
    for name, expected in case[which].items():
        check(expected, tensors[name], tensors["reference"], {}, second=which != "results")


@pytest.mark.parametrize("case", BLIND, ids=lambda case: case["name"])
@pytest.mark.parametrize("which", ["results", "second_computation"])
def test_measures_of_sets_without_odd_moments(case, which: str) -> None:
    tensors = golden_tensors(SET, "blind", case["name"])
    # fresh_draw_*: of a third set, which is not stored
    expected = {name: value for name, value in case[which].items() if not name.startswith("fresh_draw")}
    check(expected, tensors["generated"], tensors["reference"], {}, second=which != "results")


@pytest.mark.parametrize("case", MOMENTS, ids=lambda case: case["name"])
@pytest.mark.parametrize("backwards", [False, True])
def test_moments_of_rows_far_from_the_origin(case, backwards: bool) -> None:
    tensors = golden_tensors(SET, "moments", case["name"])
    bounds = [0, *tensors["ends"].tolist(), len(tensors["rows"])]
    parts = [tensors["rows"][a:b] for a, b in itertools.pairwise(bounds) if b > a]
    joined = FeatureStatistics()
    for part in reversed(parts) if backwards else parts:
        own = FeatureStatistics()
        own.update(part)
        joined = joined.merge(own)
    found, largest = joined.gaussian(), tensors["covariance"].abs().max()
    torch.testing.assert_close(found.mean, tensors["mean"], rtol=2e-15, atol=0)
    assert (found.covariance - tensors["covariance"]).abs().max() <= 1e-12 * largest
    exact = case["second_computation"]
    assert float(found.covariance[0, 1]) == pytest.approx(exact["exact_rational_cov_01"], abs=1e-12)


def test_precision_and_recall_as_published_are_the_same_balls() -> None:
    tensors = features("twins")
    found = precision_recall(tensors["generated"], tensors["real"], k=3)
    assert found == pytest.approx(
        tuple(FEATURES["twins"]["results"]["pr_torch_fidelity_k3"].values()), rel=1e-7
    )


def test_kid_of_all_rows_is_the_u_statistic() -> None:
    tensors, expected = features("small"), FEATURES["small"]["second_computation"]["kid_all_rows_unbiased"]
    assert kid_of_all_rows(tensors["generated"], tensors["real"]) == pytest.approx(expected, rel=1e-10)
