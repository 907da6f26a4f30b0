"""Evaluating by protocol: what the result says, what it refuses, and how the numbers move with the images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageFilter

from genzoo.core.errors import DataError, NonFiniteError, UsageError
from genzoo.data.digits import Digits
from genzoo.data.picture_sets import DatasetPictures
from genzoo.evaluation import protocols
from genzoo.evaluation.evaluate_images import Settings, evaluate
from genzoo.evaluation.features import FeatureNetwork, from_callable
from genzoo.evaluation.protocols import load_protocol
from genzoo.evaluation.result import load_result, protocol_differences, require_comparable
from genzoo.evaluation.tables import comparison_table, differences_from_paper, paper_table, result_table


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "reference"


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    images = DatasetPictures(Digits())
    return np.stack([images.read(index) for index in range(600)])


def linear(images: torch.Tensor) -> torch.Tensor:
    """Twelve fixed mixtures of the pixels, as a stand-in for a network."""
    mix = torch.randn(images[0].numel(), 12, generator=torch.Generator().manual_seed(0))
    return images.float().flatten(1) @ mix / 255


NETWORK = from_callable(linear, name="linear", sha256="1" * 64)


def judge(source: np.ndarray, reference: np.ndarray, **options: object):
    options = {"protocol": "quick-pixels", "num": len(source), **options}
    return evaluate(source, reference=reference, **options)


def test_a_set_against_itself(digits: np.ndarray) -> None:
    result = judge(digits[:300], digits[:300])
    assert result.metrics["pixel_frechet"] == pytest.approx(0, abs=1e-9)
    assert (result.metrics["pixel_precision"], result.metrics["pixel_recall"]) == (1.0, 1.0)
    # the unbiased estimator of a set with itself is just below zero
    assert -1e-2 < result.metrics["pixel_kid"] < 1e-2


def blur(images: np.ndarray, radius: float) -> np.ndarray:
    filtered = [Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)) for image in images]
    return np.stack([np.asarray(image) for image in filtered])


def noise(images: np.ndarray, level: float) -> np.ndarray:
    random = np.random.default_rng(0).normal(0, 255 * level, images.shape)
    return np.clip(images + random, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("spoil", "levels"), [(blur, (0.0, 0.6, 1.5)), (noise, (0.0, 0.2, 0.6))])
def test_distances_grow_with_blur_and_noise_on_real_images(digits: np.ndarray, spoil, levels) -> None:
    results = [judge(spoil(digits[:300], level), digits[300:]) for level in levels]
    for name in ("pixel_frechet", "pixel_kid"):
        values = [result.metrics[name] for result in results]
        assert values[0] < values[1] < values[2], name
    assert results[0].metrics["pixel_precision"] > results[2].metrics["pixel_precision"]


def test_the_result_states_everything_and_survives_its_file(digits: np.ndarray, tmp_path: Path) -> None:
    sampling = {"sampler": "ddim", "steps": 20, "guidance_scale": 1.5, "weights": "ema", "seed": 3}
    result = judge(digits[:300], digits[300:], sampling=sampling, reference_name="digits")
    content = json.loads(result.save(tmp_path / "deep" / "result.json").read_text())
    assert content["sampling"] == sampling
    assert content["generated"]["num"] == 300
    assert content["reference"] == {"name": "digits", "num": 300, "sha256": result.comparable["reference"]}
    assert content["network"]["name"] == "pixels"
    assert content["network"]["preprocessing"]
    assert "300 images instead of 1000" in content["differences"]
    assert load_result(tmp_path / "deep" / "result.json").metrics == result.metrics


def test_unlike_results_are_refused_and_every_difference_is_named(digits: np.ndarray) -> None:
    one = judge(digits[:300], digits[300:])
    other = judge(digits[:200], digits[200:])
    differences = protocol_differences(one, other)
    assert [line.partition(":")[0] for line in differences] == ["definition", "generated images", "reference"]
    with pytest.raises(UsageError, match="generated images: 300 against 200"):
        require_comparable([one, other])
    third = judge(digits[:300], digits[300:], network=NETWORK)
    with pytest.raises(UsageError, match="network: pixels against linear"):
        comparison_table({"a": one, "b": third})


def test_like_results_share_a_table_that_names_how_they_were_sampled(digits: np.ndarray) -> None:
    one = judge(digits[:300], digits[300:], sampling={"steps": 10})
    other = judge(noise(digits[:300], 0.1), digits[300:], sampling={"steps": 50})
    table = comparison_table({"first": one, "second": other})
    assert "second was sampled differently: steps: 10 against 50" in table
    assert table.splitlines()[2].startswith("first")


def test_too_few_images_are_refused_or_stated(digits: np.ndarray) -> None:
    with pytest.raises(DataError, match="needs 1000 images, there are 40") as error:
        judge(digits[:40], digits, num=None)
    assert "--num 40" in str(error.value)
    result = judge(digits[:40], digits[300:])
    assert any("rank-deficient" in line for line in result.warnings)
    assert "KID subsets of 40 instead of 200" in result.differences
    with pytest.raises(DataError, match="at least 2"):
        judge(digits[:1], digits)


def test_constant_images_are_a_stated_warning(digits: np.ndarray) -> None:
    images = digits[:250].copy()
    images[:5] = 9
    assert "5 of 250 generated images are of one colour" in judge(images, digits[300:]).warnings


def test_nan_features_are_an_error(digits: np.ndarray) -> None:
    def broken(images: torch.Tensor) -> torch.Tensor:
        return linear(images) / 0 * 0

    with pytest.raises(NonFiniteError, match="image 0 are not finite"):
        judge(digits[:250], digits[300:], network=broken)


def test_another_network_never_borrows_the_name_of_fid(digits: np.ndarray) -> None:
    protocol = load_protocol("adm-50k").changed(metrics={"fid": {}})
    result = evaluate(digits[:300], protocol=protocol, reference=digits[300:], num=300, network=NETWORK)
    assert list(result.metrics) == ["linear_frechet"]
    assert "feature network linear instead of inception-2015" in result.differences


def test_reference_statistics_are_cached_by_content(digits: np.ndarray, own_cache: Path) -> None:
    counts: list[int] = []

    def counting(images: torch.Tensor) -> torch.Tensor:
        counts.append(len(images))
        return linear(images)

    network = from_callable(counting, name="linear", sha256="2" * 64)
    first = judge(digits[:250], digits[300:], network=network)
    assert (sum(counts), len(list(own_cache.iterdir()))) == (550, 1)
    second = judge(digits[:250], digits[300:], network=network)
    assert sum(counts) == 550 + 250
    assert second.metrics == first.metrics
    changed = digits[300:].copy()
    changed[0, 0, 0, 0] ^= 1
    judge(digits[:250], changed, network=network)
    assert sum(counts) == 800 + 550


def test_a_damaged_cache_is_made_again(digits: np.ndarray, own_cache: Path) -> None:
    first = judge(digits[:250], digits[300:])
    next(own_cache.iterdir()).write_bytes(b"damaged")
    assert judge(digits[:250], digits[300:]).metrics == first.metrics


def test_a_callable_without_a_hash_is_not_cached(digits: np.ndarray, own_cache: Path) -> None:
    judge(digits[:250], digits[300:], network=linear)
    assert not own_cache.exists()


def test_the_batch_size_does_not_change_the_distance(digits: np.ndarray) -> None:
    values = [
        judge(digits[:300], digits[300:], settings=Settings(batch_size=size, cache=False)).metrics[
            "pixel_frechet"
        ]
        for size in (7, 300)
    ]
    assert values[0] == values[1]


def test_more_images_than_asked_for_are_left_out_and_said(digits: np.ndarray) -> None:
    result = judge(digits[:300], digits[300:], num=250)
    assert result.metrics == judge(digits[:250], digits[300:]).metrics
    assert "of 300 generated images the first 250 were judged" in result.warnings


def test_reference_rows_are_taken_at_even_steps(digits: np.ndarray) -> None:
    # the first half of the reference is black, as a folder sorted by class begins with one class
    reference = digits[:400].copy()
    reference[:200] = 0
    protocol = load_protocol("quick-pixels").changed(
        metrics={"precision_recall": {"k": 3, "reference_num": 100}}
    )
    result = evaluate(digits[400:], protocol=protocol, reference=reference, num=200)
    every_fourth = {**protocol.metrics["precision_recall"], "reference_num": None}
    alone = protocol.changed(metrics={"precision_recall": every_fourth})
    expected = evaluate(digits[400:], protocol=alone, reference=reference[::4], num=200)
    assert result.metrics == expected.metrics
    assert result.metrics["pixel_precision"] > 0


def test_progress_counts_every_stage(digits: np.ndarray) -> None:
    seen: list[tuple[str, int, int]] = []
    settings = Settings(batch_size=100, cache=False, progress=lambda *report: seen.append(report))
    judge(digits[:250], digits[300:], settings=settings)
    assert seen[:3] == [("generated", 100, 250), ("generated", 200, 250), ("generated", 250, 250)]
    assert seen[-1] == ("reference", 300, 300)


def test_features_must_be_rows(digits: np.ndarray) -> None:
    with pytest.raises(UsageError, match="must return"):
        judge(digits[:250], digits[300:], network=lambda images: images.float())


def test_an_output_that_the_network_lacks_is_named(digits: np.ndarray) -> None:
    protocol = load_protocol("torch-fidelity").changed(metrics={"inception_score": {"form": "adm"}})
    with pytest.raises(UsageError, match="no output 'logits'"):
        evaluate(digits[:250], protocol=protocol, reference=digits, num=250, network=NETWORK)


def test_paper_table_names_every_difference(digits: np.ndarray) -> None:
    protocol = load_protocol("adm-50k")
    network = FeatureNetwork("inception-2015", lambda x: {"pool": linear(x)}, ("pool",), "-", label="")
    sampling = {"sampler": "ddpm", "steps": 50, "guidance_scale": 1.5, "weights": "ema"}
    result = evaluate(
        digits[:300],
        protocol=protocol.changed(metrics={"fid": {}}),
        reference=digits[300:],
        num=300,
        network=network,
        sampling=sampling,
    )
    table = paper_table(result, protocol)
    assert "DiM-B/4 400K (DiM table 2)" in table
    row = {"protocol": "adm-50k", "generated": 50000, "steps": 250, "sampler": "ddpm", "guidance_scale": 1.5}
    differences = differences_from_paper(result, {**row, "reference": None, "weights": "ema"})
    assert differences[:2] == ["generated 300 here, 50000 there", "steps 50 here, 250 there"]
    assert "warning:" not in paper_table(result, load_protocol("quick"))
    assert "fid" in result_table(result)


PROTOCOLS = yaml.safe_load(Path(protocols.__file__).with_name("protocols.yaml").read_text())


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_loads_and_names_known_parts(name: str) -> None:
    from genzoo.evaluation.features import FEATURES
    from genzoo.evaluation.protocols import paper_rows

    protocol = load_protocol(name)
    assert protocol.network in FEATURES
    assert all(rows for _, rows in map(paper_rows, protocol.papers))
    assert protocol.fingerprint() != protocol.changed(num=protocol.num + 1).fingerprint()


def test_the_outline_is_what_the_parser_reads() -> None:
    assert protocols.outline() == {name: fields["about"] for name, fields in PROTOCOLS.items()}


def test_unknown_protocols_name_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'adm-50k'"):
        load_protocol("adm50k")


def test_a_reference_that_cannot_serve_is_told_before_anything_is_computed(
    digits: np.ndarray, tmp_path: Path
) -> None:
    def never(images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the samples were looked at")

    np.savez(tmp_path / "float.npz", digits[:9] / 255)
    for source in (tmp_path / "absent", tmp_path / "float.npz"):
        with pytest.raises(DataError):
            judge(digits[:300], source, network=never)
