"""ADM's reference files: written, read back, judged with, and refused when they do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from adm_files import write_adm_reference

from genzoo.core.errors import DataError
from genzoo.evaluation.evaluate_images import evaluate
from genzoo.evaluation.features import FeatureNetwork
from genzoo.evaluation.protocols import load_protocol
from genzoo.evaluation.reference import is_adm_reference, read_adm_reference
from genzoo.evaluation.statistics import FeatureStatistics, Gaussian


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))


def pictures(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 6, 7, 3), dtype=np.uint8)


def outputs(images: torch.Tensor) -> dict[str, torch.Tensor]:
    flat = images.float().flatten(1) / 255
    mix = torch.randn(flat.shape[1], 20, generator=torch.Generator().manual_seed(0))
    mixed = flat @ mix
    return {"pool": mixed[:, :8], "spatial": mixed[:, 8:14], "logits": mixed[:, 14:]}


NETWORK = FeatureNetwork(
    "inception-2015", outputs, ("pool", "spatial", "logits"), "-", label="", weights_sha256="6726825d00"
)


def gaussian(images: np.ndarray, output: str) -> Gaussian:
    statistics = FeatureStatistics()
    statistics.update(outputs(torch.from_numpy(images).movedim(-1, 1))[output])
    return statistics.gaussian()


def test_files_survive_and_have_adms_keys(tmp_path: Path) -> None:
    real = pictures(60, 0)
    path = write_adm_reference(
        tmp_path / "ref.npz", gaussian(real, "pool"), gaussian(real, "spatial"), real[:40]
    )
    with np.load(path) as content:
        assert sorted(content.files) == ["arr_0", "mu", "mu_s", "sigma", "sigma_s"]
    gaussians, images = read_adm_reference(path)
    assert torch.equal(gaussians["pool"].covariance, gaussian(real, "pool").covariance)
    assert images is not None
    assert len(images) == 40
    assert is_adm_reference(path)
    assert not is_adm_reference(tmp_path)


def test_the_adm_suite_from_a_file_equals_the_one_from_images(tmp_path: Path) -> None:
    real, generated = pictures(80, 0), pictures(70, 1)
    path = write_adm_reference(tmp_path / "ref.npz", gaussian(real, "pool"), gaussian(real, "spatial"), real)
    results = [
        evaluate(generated, protocol="adm-50k", reference=reference, num=70, network=NETWORK)
        for reference in (path, real)
    ]
    names = ["fid", "sfid", "inception_score", "inception_score_std", "precision", "recall"]
    assert list(results[0].metrics) == names
    assert results[0].metrics == pytest.approx(results[1].metrics, rel=1e-6)
    assert results[0].differences == ["70 images instead of 50000"]
    assert results[0].comparable["reference"] != results[1].comparable["reference"]


def test_statistics_alone_carry_fid_but_not_precision(tmp_path: Path) -> None:
    path = write_adm_reference(tmp_path / "ref.npz", gaussian(pictures(80, 0), "pool"))
    fid_only = load_protocol("adm-50k").changed(metrics={"fid": {}})
    result = evaluate(pictures(70, 1), protocol=fid_only, reference=path, num=70, network=NETWORK)
    assert result.metrics["fid"] > 0
    with pytest.raises(DataError, match="no statistics for sfid"):
        evaluate(pictures(70, 1), protocol="adm-50k", reference=path, num=70, network=NETWORK)
    precision = load_protocol("adm-50k").changed(metrics={"precision_recall": {"k": 3}})
    with pytest.raises(DataError, match="needs reference images"):
        evaluate(pictures(70, 1), protocol=precision, reference=path, num=70, network=NETWORK)


def test_misfitting_statistics_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", mu=np.zeros(5), sigma=np.zeros((4, 4)))
    with pytest.raises(DataError, match="do not fit"):
        read_adm_reference(tmp_path / "bad.npz")
    wide = Gaussian(torch.zeros(9, dtype=torch.float64), torch.eye(9, dtype=torch.float64))
    path = write_adm_reference(tmp_path / "wide.npz", wide)
    fid_only = load_protocol("adm-50k").changed(metrics={"fid": {}})
    with pytest.raises(ValueError, match="9 dimensions, the network gives 8"):
        evaluate(pictures(70, 1), protocol=fid_only, reference=path, num=70, network=NETWORK)
