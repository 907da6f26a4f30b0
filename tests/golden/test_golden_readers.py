"""Pictures of every kind come out as the pixels they stand for, and names in their natural order."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from golden.manifest import golden_cases, golden_root, golden_tensors
from PIL import Image

from genzoo.core.errors import DataError
from genzoo.data.image_decode import changes_of, decode_image
from genzoo.data.natural_order import natural
from genzoo.data.picture_sets import FilePictures

if not (golden_root() / "evaluation" / "manifest.json").is_file():
    pytest.skip("this folder of golden sets has no pictures", allow_module_level=True)
READERS, ORDERS = golden_cases("evaluation", "readers"), golden_cases("evaluation", "order")


@pytest.mark.parametrize("case", READERS, ids=lambda case: case["name"])
def test_pictures_are_read_as_they_look(case, tmp_path) -> None:
    stored = golden_tensors("evaluation", "readers", case["name"])
    data = bytes(stored["file"].numpy())
    if case["name"].endswith(".bmp"):  # a format that is not read, in training or evaluation
        with pytest.raises(DataError, match="not a JPEG, PNG or WebP"):
            decode_image(data, where=case["name"])
        return
    (tmp_path / case["name"]).write_bytes(data)
    read = torch.from_numpy(FilePictures.below(tmp_path).read(0).astype(int))
    assert read.shape == stored["expected"].shape
    assert (read - stored["expected"].int()).abs().max() <= int(case["tolerance"].split()[0])


@pytest.mark.filterwarnings("ignore:Palette images")
@pytest.mark.parametrize("case", READERS, ids=lambda case: case["name"])
def test_what_reading_changes_is_what_pillow_alone_reads_otherwise(case) -> None:
    stored = golden_tensors("evaluation", "readers", case["name"])
    data = bytes(stored["file"].numpy())
    if case["name"].endswith(".bmp"):
        assert changes_of(data) == []
        return
    with Image.open(io.BytesIO(data)) as image:
        plain = np.asarray(image.convert("RGB")).astype(int)
    ours = np.asarray(decode_image(data, where="x")).astype(int)
    alike = plain.shape == ours.shape and np.abs(plain - ours).max() <= 1
    assert alike or changes_of(data), case["name"]


@pytest.mark.parametrize("case", ORDERS, ids=lambda case: case["name"])
def test_names_sort_naturally(case) -> None:
    assert sorted(case["names"], key=natural) == case["natural"]
