"""Files of events: read back by TensorBoard itself, and the same messages as torch's writer makes."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from torch.utils.tensorboard.writer import SummaryWriter

from genzoo.training.event_file import EventFile

SCALARS = {"train/loss": 1.5, "a tag: of signs (é)": -3e-8, "large": 3e38, "nothing": math.nan, "0": 0.0}
LEVELS = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)


def messages(folder: Path) -> list[Any]:
    """All events of one file, whose checksums the loader compares."""
    (file,) = folder.iterdir()
    return list(LegacyEventFileLoader(str(file)).Load())


def test_messages_are_those_of_torch_s_writer(tmp_path: Path) -> None:
    ours, theirs = (
        EventFile(tmp_path / "ours", first_step=1),
        SummaryWriter(tmp_path / "theirs", purge_step=1),
    )
    for step in (1, 300, 2**40):
        for name, value in SCALARS.items():
            ours.scalar(name, value, step)
            theirs.add_scalar(name, value, step)
    ours.close()
    theirs.close()
    found = messages(tmp_path / "ours")[1:]
    expected = [one for one in messages(tmp_path / "theirs") if not one.file_version]  # it has two of those
    assert len(found) == 1 + 3 * len(SCALARS)
    for one, other in zip(found, expected, strict=True):
        one.wall_time = other.wall_time = 0.0
        one.ClearField("source_metadata")
        other.ClearField("source_metadata")
        assert one.SerializeToString() == other.SerializeToString()


def test_a_picture_comes_back_without_loss(tmp_path: Path) -> None:
    file = EventFile(tmp_path / "run", first_step=1)
    file.picture("preview", Image.fromarray(LEVELS), 4)
    file.close()
    (stored,) = (event.summary.value[0] for event in messages(tmp_path / "run") if event.summary.value)
    assert (stored.tag, stored.image.height, stored.image.width, stored.image.colorspace) == (
        "preview",
        5,
        7,
        3,
    )
    with Image.open(io.BytesIO(stored.image.encoded_image_string)) as picture:
        assert np.array_equal(np.asarray(picture), LEVELS)


def test_a_run_that_goes_on_hides_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    first = EventFile(tmp_path, first_step=1)
    for step in (1, 2, 3):
        first.scalar("loss", float(step), step)
    first.close()
    second = EventFile(tmp_path, first_step=3)
    second.scalar("loss", 30.0, 3)
    second.close()
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    assert [(one.step, one.value) for one in read.Scalars("loss")] == [(1, 1.0), (2, 2.0), (3, 30.0)]


@pytest.mark.parametrize(("value", "stored"), [(1e39, math.inf), (-1e39, -math.inf)])
def test_numbers_too_large_for_float32_are_infinite(tmp_path: Path, value: float, stored: float) -> None:
    file = EventFile(tmp_path, first_step=1)
    file.scalar("loss", value, 1)
    file.close()
    assert messages(tmp_path)[-1].summary.value[0].simple_value == stored
