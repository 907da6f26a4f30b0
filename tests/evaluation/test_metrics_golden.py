"""Every metric case of the golden manifest, recomputed. Names and sizes come from the manifest."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from golden.manifest import golden_cases, golden_tensors

from genzoo.evaluation.measures.distances import squared_radii
from genzoo.evaluation.measures.frechet import frechet_distance
from genzoo.evaluation.measures.inception_score import inception_score_adm, inception_score_torch_fidelity
from genzoo.evaluation.measures.kid import kernel_distance, polynomial_mmd
from genzoo.evaluation.measures.precision_recall import precision_recall
from genzoo.evaluation.statistics import FeatureStatistics

SET, KEY = "ssm_diffusion", "metrics"
CASES = {case["name"]: case for case in golden_cases(SET, KEY)}


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found, f"the manifest's settings do not say {pattern!r}: {text!r}"
    return int(found.group(1))


def gaussian(features: torch.Tensor, ddof: int = 1):
    statistics = FeatureStatistics()
    for part in features.split(7):
        statistics.update(part)
    return statistics.gaussian(ddof=ddof)


def frechet(generated: torch.Tensor, real: torch.Tensor, ddof: int = 1) -> float:
    a, b = gaussian(generated, ddof), gaussian(real, ddof)
    return frechet_distance(a.mean, a.covariance, b.mean, b.covariance)


def recompute(name: str, t: dict[str, torch.Tensor], settings: dict[str, str], expected: Any) -> Any:
    """The number the manifest calls `name`; raises KeyError for one this library does not know."""
    if name in ("fid_torch_fidelity", "fid_adm"):
        pair = ("generated", "real") if "real" in t else ("a", "b")
        return frechet(t[pair[0]], t[pair[1]])
    if name == "fvd_styleganv_biased_cov":
        return frechet(t["generated"], t["real"], ddof=0)
    if name.startswith("kid_"):
        kid = kernel_distance(
            t["generated"],
            t["real"],
            subsets=number(r"(\d+) subsets", settings["kid"]),
            subset_size=number(r"subsets of (\d+)", settings["kid"]),
            seed=number(r"rng_seed (\d+)", settings["kid"]),
        )
        return getattr(kid, name.removeprefix("kid_"))
    if name == "mmd2":
        rows = number(r"first (\d+) rows", settings["mmd2"])
        return {
            form: polynomial_mmd(t["generated"][:rows], t["real"][:rows], estimator=form) for form in expected
        }
    if name in ("adm_precision", "adm_recall", "tf_precision", "tf_recall"):
        k = number(r"k=(\d+)", settings["prc"])
        return getattr(precision_recall(t["generated"], t["real"], k=k), name.partition("_")[2])
    if name.startswith("is_tf_"):
        splits = number(r"is_tf_(\d+)", name)
        seed = number(r"shuffle(\d+)", name) if re.search(r"shuffle\d+", name) else None
        return list(
            inception_score_torch_fidelity(
                t["logits"], splits=splits, shuffle=seed is not None, seed=seed or 0
            )
        )
    if name.startswith("is_adm_split"):
        size = len(t["probs"]) if name.endswith("_all") else number(r"split(\d+)", name)
        return inception_score_adm(t["probs"], split_size=size).mean
    raise KeyError(f"no implementation for the golden result {name!r}")


@pytest.mark.parametrize("name", CASES)
def test_golden_results(name: str) -> None:
    case = CASES[name]
    tensors = golden_tensors(SET, KEY, case["name"])
    if not tensors:  # "identical": any set against itself
        tensors = next(
            found for other in CASES.values() if "real" in (found := golden_tensors(SET, KEY, other["name"]))
        )
        tensors = {"real": tensors["real"], "generated": tensors["real"]}
    for key, expected in case["results"].items():
        got = recompute(key, tensors, case.get("settings", {}), expected)
        exact = "precision" in key or "recall" in key
        # precision and recall are counts over n; torch-fidelity's are rounded to float32
        assert got == pytest.approx(expected, rel=1e-7 if exact else 1e-6, abs=1e-9), key


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "mu_real" in case["keys"]])
def test_golden_statistics(name: str) -> None:
    tensors = golden_tensors(SET, KEY, name)
    for side, full in (("real", "real"), ("gen", "generated")):
        statistics = gaussian(tensors[full])
        torch.testing.assert_close(statistics.mean, tensors[f"mu_{side}"], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(statistics.covariance, tensors[f"sigma_{side}"], rtol=1e-12, atol=1e-12)
    biased = gaussian(tensors["generated"], ddof=0).covariance
    # StyleGAN-V sums float32 outer products, so its own matrix is good to 1e-7
    torch.testing.assert_close(biased, tensors["fvd_cov_gen_biased"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "radii_real_sq" in case["keys"]])
def test_golden_radii_are_squared(name: str) -> None:
    tensors = golden_tensors(SET, KEY, name)
    k = number(r"k=(\d+)", CASES[name]["settings"]["prc"])
    radii = squared_radii(tensors["real"], k=k, rows=50, columns=70)
    torch.testing.assert_close(radii.float(), tensors["radii_real_sq"], rtol=1e-5, atol=1e-6)
