"""Pictures in folders of Hugging Face `datasets`: those of the same files in a folder, read offline."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from data.hostile_images import photo

from genzoo.core.errors import DataError
from genzoo.data.arrow_folder import ArrowFolder, hf_folder
from genzoo.data.image_folder import ImageFolder
from genzoo.data.sample_stream import SampleStream, batches

datasets = pytest.importorskip("datasets", reason="the extra `datasets` is not installed")


def table(loose: Path, **columns: list[Any]) -> Any:
    files = sorted(loose.rglob("*.png"), key=lambda path: int(path.stem))
    given = {"img": [str(path) for path in files], "label": [int(path.parent.name) for path in files]}
    kinds = {"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    given["words"] = [f"picture {path.stem}" for path in files]
    kinds["words"] = datasets.Value("string")
    given |= columns
    kinds |= {name: datasets.Value("int64") for name in columns}
    return datasets.Dataset.from_dict(given, features=datasets.Features(kinds))


@pytest.fixture
def loose(tmp_path: Path) -> Path:
    for number in range(7):
        place = tmp_path / "loose" / f"{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        photo(20 + number, 18).save(place / f"{number}.png")
    return tmp_path / "loose"


@pytest.fixture
def root(loose: Path) -> Path:
    table(loose).save_to_disk(loose.parent / "arrow", num_shards=3)
    return loose.parent / "arrow"


def opened(root: Path, **options: Any) -> ArrowFolder:
    dataset = hf_folder(root, image_size=8, **options)
    assert isinstance(dataset, ArrowFolder)
    return dataset


def test_items_are_those_of_the_same_files_in_a_folder(root: Path, loose: Path) -> None:
    arrow, folder = opened(root, captions=True), ImageFolder(loose, image_size=8)
    by_name = {Path(folder.path(index)).stem: index for index in range(7)}
    assert (len(arrow), arrow.num_classes, arrow.class_names) == (7, 2, ["cat", "dog"])
    for number in range(7):
        item = arrow.fetch(number, torch.Generator().manual_seed(number))
        other = folder.fetch(by_name[str(number)], torch.Generator().manual_seed(number))
        assert item["pixels"].equal(other["pixels"])
        assert item["class_labels"].equal(other["class_labels"])
        assert item["captions"] == f"picture {number}"
    with pytest.raises(IndexError):
        arrow.fetch(7)


def test_order_does_not_depend_on_processes_workers_or_where_one_starts(root: Path) -> None:
    dataset = opened(root)

    def pixels(rank: int, world: int, start: int = 0, workers: int = 0) -> list[torch.Tensor]:
        stream = SampleStream(dataset, seed=1, max_bad=0)
        made = batches(
            stream, batch_size=6, per_device=6 // world, rank=rank, world=world, start_step=start,
            num_workers=workers, pin_memory=False,
        )  # fmt: skip
        return [torch.cat([batch["pixels"] for batch in next(made)]) for _ in range(3 - start)]

    alone = pixels(0, 1)
    halves = [torch.cat(pair) for pair in zip(pixels(0, 2), pixels(1, 2), strict=True)]
    assert all(ours.equal(theirs) for ours, theirs in zip(halves, alone, strict=True))
    assert all(ours.equal(theirs) for ours, theirs in zip(pixels(0, 1, workers=1), alone, strict=True))
    assert pixels(0, 1, start=2)[0].equal(alone[2])


def test_the_place_does_not_matter_and_the_content_does(root: Path, loose: Path, tmp_path: Path) -> None:
    before = opened(root)
    moved = Path(shutil.copytree(root, tmp_path / "moved"))
    assert opened(moved).fingerprint == before.fingerprint
    assert opened(root, horizontal_flip=False).fingerprint != before.fingerprint
    assert opened(root, label_column="none").fingerprint != before.fingerprint
    photo(31, 40).save(loose / "1" / "3.png")
    table(loose).save_to_disk(tmp_path / "other", num_shards=3)
    assert opened(tmp_path / "other").fingerprint != before.fingerprint


def test_it_travels_as_a_reference_to_its_files(root: Path) -> None:
    dataset = opened(root, captions=True)
    sent = pickle.dumps(dataset)
    assert len(sent) < 20_000
    assert pickle.loads(sent).fetch(4)["pixels"].equal(dataset.fetch(4)["pixels"])


def test_a_folder_of_several_splits_asks_for_one(loose: Path, tmp_path: Path) -> None:
    both = datasets.DatasetDict({"train": table(loose), "test": table(loose).select(range(2))})
    both["test"] = both["test"].flatten_indices()
    both.save_to_disk(tmp_path / "both")
    assert len(opened(tmp_path / "both", split="test")) == 2
    with pytest.raises(DataError, match=r"data\.split to one of train, test"):
        opened(tmp_path / "both")
    with pytest.raises(DataError, match="'train'"):
        opened(tmp_path / "both", split="trian")
    with pytest.raises(DataError, match="one data set"):
        opened(tmp_path / "both" / "train", split="train")


def test_columns_are_found_by_type_or_asked_for(loose: Path, tmp_path: Path) -> None:
    table(loose, number=[5, 6, 7, 8, 9, 10, 11]).save_to_disk(tmp_path / "more")
    assert opened(tmp_path / "more").num_classes == 2
    assert opened(tmp_path / "more", label_column="none").labels is None
    assert opened(tmp_path / "more", label_column="number").num_classes == 12
    with pytest.raises(DataError, match=r"(?s)no column 'imag' of images.*img \(Image\)"):
        opened(tmp_path / "more", image_column="imag")
    two = table(loose).add_column("more_words", ["x"] * 7)
    two.save_to_disk(tmp_path / "two")
    with pytest.raises(DataError, match=r"data.caption_column to one of words, more_words"):
        opened(tmp_path / "two", captions=True)


def test_files_outside_and_missing_ones_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder that `datasets` saved"):
        opened(tmp_path)
    state = json.loads((root / "state.json").read_text())
    state["_data_files"][0]["filename"] = "../arrow/data-00000-of-00003.arrow"
    (root / "state.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match="names a file outside"):
        opened(root)
    state["_data_files"][0]["filename"] = "gone.arrow"
    (root / "state.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match=r"gone\.arrow is missing"):
        opened(root)
    (root / "state.json").write_text("[]")
    with pytest.raises(DataError, match="does not list the files"):
        opened(root)


def test_a_picture_outside_the_row_is_not_opened(loose: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    from datasets.arrow_writer import ArrowWriter

    path = str(loose / "0" / "0.png")
    kept = tmp_path / "outside"
    table(loose).select(range(1)).flatten_indices().save_to_disk(kept)
    features = datasets.load_from_disk(kept).features
    row = {"img": [{"bytes": None, "path": path}], "label": [0], "words": ["x"]}
    with ArrowWriter(features=features, path=str(kept / "data-00000-of-00001.arrow")) as writer:
        writer.write_table(pa.table(row, schema=features.arrow_schema))
        writer.finalize()
    with pytest.raises(DataError, match=r"(?s)not in the row.*row 0"):
        opened(kept).fetch(0)


def test_nobody_is_asked_for_anything_online(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, str | None] = {}
    load = datasets.load_from_disk

    def watched(*arguments: Any, **options: Any) -> Any:
        seen.update({name: os.environ.get(name) for name in ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE")})
        return load(*arguments, **options)

    monkeypatch.delenv("HF_DATASETS_OFFLINE", raising=False)
    monkeypatch.setattr(datasets, "load_from_disk", watched)
    opened(root)
    assert seen == {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    assert "HF_DATASETS_OFFLINE" not in os.environ
