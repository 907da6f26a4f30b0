"""An evaluation that was stopped goes on where it was, to the same bits, and leaves nothing behind."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from genzoo.core.cache_folder import cache_folder
from genzoo.data.picture_sets import ArrayPictures
from genzoo.evaluation import feature_blocks, measuring
from genzoo.evaluation.evaluate_images import Settings, evaluate
from genzoo.evaluation.features import FeatureNetwork, from_callable

NUM, BLOCK = 46, 10


@pytest.fixture(autouse=True)
def small_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(feature_blocks, "BLOCK", BLOCK)
    monkeypatch.setattr(measuring, "BLOCK", BLOCK)


class Counted(ArrayPictures):
    """Pictures that count how often they are read."""

    def __init__(self, array: np.ndarray) -> None:
        super().__init__(array)
        self.reads: list[int] = []

    def read(self, index: int) -> np.ndarray:
        self.reads.append(index)
        return super().read(index)


def levels(seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).integers(0, 256, (NUM, 6, 6, 3), dtype=np.uint8)
    found[12] = 7  # of one colour
    return found


def network(stops_after: int | None = None) -> FeatureNetwork:
    """The first pixels; fails when it has seen so many pictures."""
    seen = [0]

    def extract(pictures: torch.Tensor) -> torch.Tensor:
        seen[0] += len(pictures)
        if stops_after is not None and seen[0] > stops_after:
            raise KeyboardInterrupt
        return pictures.flatten(1)[:, :5].float()

    return from_callable(extract, name="five", sha256="0" * 64)


def judge(pictures: Counted, net: FeatureNetwork, batch_size: int = 4, cache: bool = True):
    settings = Settings(batch_size=batch_size, workers=1, cache=cache)
    return evaluate(
        pictures, protocol="quick-pixels", reference=levels(1), num=NUM, network=net, settings=settings
    )


def files() -> list[Path]:
    return sorted(cache_folder("features").glob("*.safetensors"))


def test_a_stopped_evaluation_goes_on_to_the_same_bits_and_leaves_no_files() -> None:
    whole = judge(Counted(levels()), network(), cache=False)
    with pytest.raises(KeyboardInterrupt):
        judge(Counted(levels()), network(stops_after=27))
    assert len(files()) == 2  # of the third block only a part was done
    again = Counted(levels())
    result = judge(again, network())
    assert min(index for index in again.reads if index) == 20  # 0 tells the size
    assert result.metrics == whole.metrics
    assert result.intervals == whole.intervals
    assert result.warnings == whole.warnings
    assert any("1 of 46 generated images are of one colour" in line for line in result.warnings)
    assert files() == []


def test_a_damaged_or_edited_block_is_done_again() -> None:
    with pytest.raises(KeyboardInterrupt):
        judge(Counted(levels()), network(stops_after=33))
    first, *_ = files()
    first.write_bytes(first.read_bytes()[:-3])
    edited = levels()
    edited[25] = 9
    again = Counted(edited)
    result = judge(again, network())
    assert (
        len(set(again.reads)) >= BLOCK + BLOCK + NUM - 3 * BLOCK
    )  # the damaged, the edited, those never done
    assert result.metrics == judge(Counted(edited), network(), cache=False).metrics


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batches_change_no_bit(batch_size: int) -> None:
    assert (
        judge(Counted(levels()), network(), batch_size).metrics == judge(Counted(levels()), network()).metrics
    )


def test_a_cache_that_cannot_be_written_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(logging.getLogger("genzoo"), "propagate", True)
    result = judge(Counted(levels()), network())
    assert result.metrics == judge(Counted(levels()), network(), cache=False).metrics
    told = [record.message for record in caplog.records if "features are not kept" in record.message]
    assert len(told) == 2  # one for the generated set, one for the reference
