"""Pictures in tar shards: those of the same files in a folder, by an index that cannot be another's."""

from __future__ import annotations

import os
import pickle
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from data.hostile_images import photo
from data.latent_cases import HalvingCodec
from forked_group import run_together
from golden.many_processes_sets import FOLDER

from genzoo.api.preparation.shards import ShardReport, prepare_shards
from genzoo.core.errors import DataError
from genzoo.core.processes import World
from genzoo.data.cached_latents import CachedLatents
from genzoo.data.image_folder import ImageFolder
from genzoo.data.image_shards import ImageShards, image_shards
from genzoo.data.latent_cache import build_latent_cache
from genzoo.data.sample_stream import SampleStream, batches
from genzoo.data.shard_index import index_path, is_current


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Seven pictures of two classes: loose in class folders, and in three shards."""
    shards = tmp_path / "shards"
    shards.mkdir()
    for number in range(7):
        place = tmp_path / "loose" / f"{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        photo(20 + number, 18).save(place / f"{number}.png")
        (tmp_path / f"{number}.cls").write_text(f" {number % 2}\n")
        (tmp_path / f"{number}.txt").write_text(f"picture {number}", encoding="utf-8")
        with tarfile.open(shards / f"part-{number // 3}.tar", "a", format=tarfile.USTAR_FORMAT) as archive:
            archive.add(place / f"{number}.png", f"{number}.png")
            archive.add(tmp_path / f"{number}.cls", f"{number}.cls")
            archive.add(tmp_path / f"{number}.txt", f"{number}.txt")
    return shards


def opened(root: Path, **options: object) -> ImageShards:
    dataset = image_shards(root, image_size=8, **options)  # type: ignore[arg-type]
    assert isinstance(dataset, ImageShards)
    return dataset


def test_items_are_those_of_the_same_files_in_a_folder(root: Path) -> None:
    assert prepare_shards(root) == ShardReport(3, 7, 3, [])
    shards, folder = opened(root, captions=True), ImageFolder(root.parent / "loose", image_size=8)
    by_name = {Path(folder.path(index)).stem: index for index in range(7)}
    assert (shards.num_classes, shards.class_names) == (2, ["0", "1"])
    for number in range(7):
        item = shards.fetch(number, torch.Generator().manual_seed(number))
        other = folder.fetch(by_name[str(number)], torch.Generator().manual_seed(number))
        assert item["pixels"].equal(other["pixels"])
        assert item["class_labels"].equal(other["class_labels"])
        assert item["captions"] == f"picture {number}"
    with pytest.raises(IndexError):
        shards.fetch(7)


def test_a_second_call_indexes_nothing_and_an_edited_shard_again(root: Path) -> None:
    prepare_shards(root)
    assert prepare_shards(root).made == 0
    first = root / "part-0.tar"
    os.utime(first, (1, 1))
    assert is_current(first)  # copied: its ends are the same
    data = bytearray(first.read_bytes())
    data[600] ^= 1
    first.write_bytes(data)
    assert not is_current(first)  # same size, other time, other content
    with pytest.raises(DataError, match="prepare shards"):
        opened(root)
    assert prepare_shards(root).made == 1


def test_a_shard_that_grew_or_shrank_is_not_read_by_its_old_index(root: Path) -> None:
    prepare_shards(root)
    dataset = opened(root)
    last = root / "part-2.tar"
    last.write_bytes(last.read_bytes()[:540])
    with pytest.raises(DataError, match=r"part-2\.tar: 6, at byte 512"):
        dataset.fetch(6)
    with pytest.raises(DataError, match="no index, or one of other content"):
        opened(root)


def test_indices_may_lie_elsewhere_and_shards_may_move(root: Path, tmp_path: Path) -> None:
    indices = tmp_path / "indices"
    prepare_shards(root, indices)
    assert not list(root.glob("*.safetensors"))
    before = opened(root, index=indices)
    moved = Path(shutil.copytree(root, tmp_path / "moved"))
    after = opened(moved, index=indices)
    assert after.fingerprint == before.fingerprint
    assert after.fetch(4)["pixels"].equal(before.fetch(4)["pixels"])
    assert opened(root, index=indices, horizontal_flip=False).fingerprint != before.fingerprint


def test_an_index_of_dali_is_used_and_checked(root: Path) -> None:
    prepare_shards(root)
    own = opened(root, captions=True)
    for shard in own.shards:
        lines = [f"v1.2 {len(shard)}"]
        for row, key in enumerate(shard.keys[:]):
            offset, size, text, length = shard.places[row].tolist()
            label = offset + 512 + -(-size // 512) * 512
            lines.append(
                f"png {offset} {size} {key}.png cls {label} 3 {key}.cls txt {text} {length} {key}.txt"
            )
        shard.path.with_suffix(".idx").write_text("\n".join(lines) + "\n")
        index_path(shard.path).unlink()
    dali = opened(root, captions=True)
    assert dali.fingerprint == own.fingerprint
    assert all(dali.fetch(i)["pixels"].equal(own.fetch(i)["pixels"]) for i in range(7))
    idx = root / "part-1.idx"
    idx.write_text(idx.read_text().replace("png 512 ", "png 1024 "))
    with pytest.raises(DataError, match=r"part-1\.tar"):
        opened(root).fetch(3)
    idx.write_text("v1.1 3\n")
    with pytest.raises(DataError, match=r"version 1\.2"):
        opened(root)


def test_order_does_not_depend_on_processes_workers_or_where_one_starts(root: Path) -> None:
    prepare_shards(root)
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
    assert all(ours.equal(theirs) for ours, theirs in zip(pixels(0, 1, workers=2), alone, strict=True))
    assert pixels(0, 1, start=2)[0].equal(alone[2])


def test_few_files_stay_open_and_none_travel(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_shards(root)
    monkeypatch.setattr("genzoo.data.image_shards.OPEN_SHARDS", 2)
    dataset = opened(root)
    before = len(os.listdir("/proc/self/fd"))
    for index in (0, 3, 6, 0, 6, 3):
        dataset.fetch(index)
    assert len(os.listdir("/proc/self/fd")) == before + 2
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.fetch(6)["pixels"].equal(dataset.fetch(6)["pixels"])
    del dataset, copy
    assert len(os.listdir("/proc/self/fd")) == before


def test_latents_of_shards_are_cached_like_those_of_files(root: Path, tmp_path: Path) -> None:
    prepare_shards(root)
    cached = image_shards(root, image_size=8, latent_cache=tmp_path / "latents")
    assert isinstance(cached, CachedLatents)
    assert build_latent_cache(cached, HalvingCodec()).built == 7
    cached.bind_codec(HalvingCodec())
    assert cached.fetch(5)["moments"].shape == (6, 4, 4)


def test_shards_without_classes_and_with_some(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "shards" / "part-00000.tar", tmp_path)
    report = prepare_shards(tmp_path)
    assert (report.samples, len(report.ignored)) == (6, 6)
    with pytest.raises(DataError, match="2 of 6 samples have no class"):
        opened(tmp_path)
    with pytest.raises(DataError, match="there are no shards here"):
        opened(tmp_path / "nowhere")


@pytest.mark.distributed
def test_two_processes_index_each_shard_once(root: Path, tmp_path: Path) -> None:
    def work(world: World) -> ShardReport:
        return prepare_shards(root, world=world)

    assert run_together(work, tmp_path / "group") == [ShardReport(3, 7, 3, [])] * 2
    assert prepare_shards(root).made == 0
