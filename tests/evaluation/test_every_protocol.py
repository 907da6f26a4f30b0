"""Every named protocol from the command line to its result, with small networks in place of the published.

The published networks have tests of their own, with random weights in their files' layout (test_networks,
test_measure_networks); here is what lies around them: reading, extraction, metrics, papers, the JSON.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from adm_files import write_adm_reference
from PIL import Image

from genzoo.cli import main
from genzoo.core.registry import FEATURES, Entry
from genzoo.evaluation.features import FeatureNetwork
from genzoo.evaluation.protocols import load_protocol, outline
from genzoo.evaluation.statistics import FeatureStatistics

PICTURES, REAL, CLIPS, SIDE = 24, 31, 9, 12
OWN = {"inception-2015": "", "i3d-kinetics400": "", "dinov2-vitl14": "dino", "clip-vit-b32": "clip"}
# numbers under other names than the metric that makes them
NUMBERS = {
    "precision_recall": ("precision", "recall"),
    "prdc": ("precision", "recall", "density", "coverage"),
    "control_adherence": ("control_precision", "control_recall", "control_f1"),
    "mind": ("mind", "mind_floor"),
    "cmmd": ("cmmd", "cmmd_unbiased"),
}


def small(name: str, device: str = "cpu", weights: object = None) -> FeatureNetwork:
    """Mean levels of thirds of the picture in the place of a network, under its name and its label."""
    real = OWN.get(name, name)

    def extract(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        rows = batch.float().flatten(2).flatten(1).div(255)
        pool = torch.stack([part.mean(1) for part in rows.chunk(7, 1)], 1)
        return {"pool": pool, "spatial": pool[:, :5] ** 2, "logits": 3 * pool}

    extras = {"encode_text": lambda prompts: torch.ones(len(prompts), 7)}
    own = ("fdd", "cmmd", "jedi")
    return FeatureNetwork(
        name,
        extract,
        ("pool", "spatial", "logits"),
        "-",
        real,
        own=own,
        extras=extras,
        weights_sha256="6726825d",
    )


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    for name in FEATURES:
        entry = Entry(lambda weights=None, device="cpu", name=name: small(name), "-")
        monkeypatch.setitem(FEATURES._entries, name, entry)


def levels(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def pictures(folder: Path, count: int, seed: int) -> Path:
    folder.mkdir(parents=True)
    for index, level in enumerate(levels(count, seed)):
        Image.fromarray(level).save(folder / f"{index}.png")
    return folder


def clips(folder: Path, seed: int) -> Path:
    """48 frames, as many as every third of sixteen needs."""
    for number in range(CLIPS):
        pictures(folder / f"clip{number}", 48, 100 * seed + number)
    return folder


def adm_reference(path: Path) -> Path:
    found = {name: FeatureStatistics() for name in ("pool", "spatial")}
    batch = torch.from_numpy(levels(REAL, 2)).movedim(-1, 1)
    for name, statistics in found.items():
        statistics.update(small("inception-2015").extract(batch)[name])
    pool, spatial = (statistics.gaussian() for statistics in found.values())
    return write_adm_reference(path, pool, spatial, levels(REAL, 2))


def judged(tmp_path: Path, name: str) -> list[str]:
    """The samples, reference and options of a protocol, as a user gives them."""
    kind = load_protocol(name).kind
    if kind == "clips":
        sets = [str(clips(tmp_path / "samples", 1)), "--reference", str(clips(tmp_path / "real", 2))]
        return [*sets, "--num", str(CLIPS)]
    samples = pictures(tmp_path / "samples", PICTURES, 1)
    real = adm_reference(tmp_path / "r.npz") if name == "adm-50k" else pictures(tmp_path / "real", REAL, 2)
    more = ["--num", str(PICTURES)]
    if kind == "controls":
        more += ["--controls", str(pictures(tmp_path / "maps", PICTURES, 3))]
    if kind == "concepts":
        (samples / "prompts.json").write_text(json.dumps({str(i): "a <new1> cat" for i in range(PICTURES)}))
        real = f"{real}+{pictures(tmp_path / 'other', 5, 4)}"  # type: ignore[assignment]
    return [str(samples), "--reference", str(real), *more]


@pytest.mark.parametrize("name", list(outline()))
def test_a_protocol_runs_from_the_command_line_to_its_result(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    protocol, output = load_protocol(name), tmp_path / "result.json"
    words = judged(tmp_path, name)
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", *words, "--protocol", name, "--output", str(output), "--device", "cpu"])
    printed = capsys.readouterr()
    assert not stop.value.code, printed.err
    found = json.loads(output.read_text())
    for metric in protocol.metrics:
        for number in NUMBERS.get(metric, (metric,)):
            values = [value for key, value in found["metrics"].items() if key.endswith(number)]
            assert values, (number, list(found["metrics"]))
            assert all(math.isfinite(value) for value in values)
    assert found["protocol"] == name
    assert any("instead of" in line for line in found["differences"])  # fewer than the protocol says
    for group in protocol.papers:
        assert f"{group}, as printed" in printed.out
    assert "nan" not in printed.out


def test_a_run_that_was_packed_is_judged_as_its_folder(tmp_path: Path) -> None:
    """`genzoo sample --npz` writes what adm-50k reads, and the numbers are those of the pictures."""
    folder, output = pictures(tmp_path / "samples", PICTURES, 1), tmp_path / "result.json"
    np.savez(tmp_path / "samples.npz", arr_0=levels(PICTURES, 1))
    reference, numbers = adm_reference(tmp_path / "r.npz"), []
    for source in (folder, tmp_path / "samples.npz"):
        with pytest.raises(SystemExit) as stop:
            main(
                ["evaluate", str(source), "--protocol", "adm-50k", "--num", str(PICTURES), "--overwrite"]
                + ["--reference", str(reference), "--output", str(output), "--device", "cpu"]
            )
        assert not stop.value.code
        numbers.append(json.loads(output.read_text())["metrics"])
    assert numbers[0] == numbers[1]
    assert {"fid", "sfid", "inception_score", "precision", "recall"} <= set(numbers[0])
