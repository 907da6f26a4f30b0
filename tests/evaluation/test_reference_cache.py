"""A cache of reference statistics that cannot be written is a warning, and the numbers are the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from recipe_cases import TINY

from genzoo.api.run import Run, train
from genzoo.core.recipe import recipe_from
from genzoo.evaluation.reference import Reference, cached_reference
from genzoo.evaluation.statistics import Gaussian


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return train(recipe_from({**TINY, "report": [], "preview": None}), output=tmp_path / "run")


def test_evaluation_goes_on_without_a_cache(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    expected = run.evaluate("quick-pixels", num=12).metrics
    assert list((tmp_path / "cache/reference").glob("*.safetensors"))
    (tmp_path / "file").touch()
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "file/below"))
    assert run.evaluate("quick-pixels", num=12).metrics == expected
    assert "not kept" in caplog.text


def zero_half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-9] ^= 1  # the last bits of a number: nothing else would notice
    path.write_bytes(content)


def more_images(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'\\"count\\": 7', b'\\"count\\": 9'))


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("damage", [zero_half, flip, more_images, as_pipe])
def test_altered_statistics_of_a_reference_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path))
    rows = torch.arange(28, dtype=torch.float64).reshape(7, 4).sin()
    made = []

    def make() -> Reference:
        made.append(1)
        return Reference("abc", {"pool": Gaussian(rows.mean(0), rows.T.cov(), 7, 1)}, {"pool": rows}, 7)

    def equal(one: Reference, other: Reference) -> bool:
        pairs = ((one.gaussians["pool"], other.gaussians["pool"]),)
        same = all(torch.equal(a.covariance, b.covariance) and a.count == b.count for a, b in pairs)
        return same and torch.equal(one.rows["pool"], other.rows["pool"]) and one.count == other.count

    first = cached_reference({"of": "rows"}, make)
    assert equal(cached_reference({"of": "rows"}, make), first)
    assert len(made) == 1
    (path,) = (tmp_path / "reference").glob("*.safetensors")
    before = None if damage is as_pipe else path.read_bytes()
    damage(path)
    assert before is None or path.read_bytes() != before
    assert equal(cached_reference({"of": "rows"}, make), first)
    assert len(made) == 2
    assert equal(cached_reference({"of": "rows"}, make), first)
    assert len(made) == 2
