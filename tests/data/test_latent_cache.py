"""A latent cache that cannot go stale: whatever changes, exactly what depends on it is built again."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from dead_processes import name_of_the_dead
from hostile_images import photo
from latent_cases import HalvingCodec, build, counts, write_pictures
from torch import Tensor

from genzoo.core.errors import DataError, UsageError
from genzoo.core.seeds import generator_for
from genzoo.data import latent_cache, latent_store
from genzoo.data.cached_latents import CachedLatents
from genzoo.data.digits import Digits
from genzoo.data.image_folder import ImageFolder, image_folder
from genzoo.data.latent_cache import build_latent_cache
from genzoo.data.latent_store import LatentStore
from genzoo.data.sample_stream import SampleStream, batches


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "images")


def test_second_build_reuses_everything(root: Path, tmp_path: Path) -> None:
    codec = HalvingCodec()
    seen: list[tuple[int, int]] = []
    first = build(root, tmp_path / "c", codec, progress=lambda *step: seen.append(step))
    assert counts(first) == (0, 7, 0)
    assert codec.encoded == 14  # each picture and its mirror image
    assert seen == [(i, 7) for i in range(1, 8)]
    assert counts(build(root, tmp_path / "c", codec)) == (7, 0, 0)
    assert codec.encoded == 14


def test_an_edited_image_alone_is_built_again(root: Path, tmp_path: Path) -> None:
    build(root, tmp_path / "c")
    photo(31, 17).save(root / "class1" / "3.png")
    report = build(root, tmp_path / "c")
    assert counts(report) == (6, 1, 0)
    assert (report.unused, report.pruned) == (1, 0)


def test_a_touched_or_moved_image_is_not(root: Path, tmp_path: Path) -> None:
    build(root, tmp_path / "c")
    os.utime(root / "class0" / "0.png", (1, 1))
    (root / "class1" / "3.png").rename(root / "class0" / "99.png")
    assert counts(build(root, tmp_path / "c")) == (7, 0, 0)
    bound = CachedLatents(ImageFolder(root, image_size=8), tmp_path / "c")
    os.utime(root / "class0" / "2.png", (2, 2))
    bound.bind_codec(HalvingCodec())
    assert len(bound) == 7


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 4},
        {"channels": 1},
        {"horizontal_flip": False},
        {"dtype": "float16"},
        {"codec": HalvingCodec("other weights")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_build_their_own_entries_and_keep_the_old(
    root: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    build(root, tmp_path / "c")
    assert counts(build(root, tmp_path / "c", **change)) == (0, 7, 0)
    assert counts(build(root, tmp_path / "c")) == (7, 0, 0)
    assert counts(build(root, tmp_path / "c", **change)) == (7, 0, 0)


def test_prune_removes_what_is_not_used_and_nothing_else(root: Path, tmp_path: Path) -> None:
    build(root, tmp_path / "c")
    build(root, tmp_path / "c", dtype="float16")
    photo(31, 17).save(root / "class1" / "3.png")
    name_of_the_dead(tmp_path / "c" / "shard-x.safetensors").write_bytes(b"left by a killed writer")
    report = build(root, tmp_path / "c", prune=True)
    assert (report.unused, report.pruned) == (8, 8)
    assert counts(build(root, tmp_path / "c")) == (7, 0, 0)
    assert len(LatentStore(tmp_path / "c").places) == 7
    assert not list((tmp_path / "c").glob(".tmp-*"))
    assert counts(build(root, tmp_path / "c", dtype="float16")) == (0, 7, 0)


def test_cached_latents_equal_encoding_on_the_fly(root: Path, tmp_path: Path) -> None:
    codec = HalvingCodec()
    build(root, tmp_path / "c", codec)
    images = ImageFolder(root, image_size=8)
    cached = image_folder(root, image_size=8, latent_cache=tmp_path / "c", latent_dtype="float32")
    assert isinstance(cached, CachedLatents)
    cached.bind_codec(codec)
    assert (cached.sample_shape, cached.num_classes) == (images.sample_shape, 2)
    for index in range(7):
        for seed in range(6):
            direct = images.fetch(index, generator_for(seed))
            item = cached.fetch(index, generator_for(seed))
            assert set(item) == {"moments", "class_labels"}
            assert item["class_labels"] == direct["class_labels"]
            assert torch.equal(item["moments"], codec.moments(direct["pixels"][None])[0])


def test_the_stream_meets_the_same_items_in_workers(root: Path, tmp_path: Path) -> None:
    build(root, tmp_path / "c")
    cached = CachedLatents(ImageFolder(root, image_size=8), tmp_path / "c")
    cached.bind_codec(HalvingCodec())
    alone, helped = (
        next(batches(SampleStream(cached, seed=3), batch_size=6, per_device=3, num_workers=workers))
        for workers in (0, 2)
    )
    for one, two in zip(alone, helped, strict=True):
        assert torch.equal(one["moments"], two["moments"])
        assert one["moments"].shape == (3, 6, 4, 4)
    again = pickle.loads(pickle.dumps(cached))
    assert torch.equal(again.fetch(2)["moments"], cached.fetch(2)["moments"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_kept_as_such(root: Path, tmp_path: Path, dtype: str) -> None:
    build(root, tmp_path / "c", dtype=dtype)
    cached = CachedLatents(ImageFolder(root, image_size=8), tmp_path / "c", dtype=dtype)
    cached.bind_codec(HalvingCodec())
    exact = HalvingCodec().moments(cached.images.fetch(1)["pixels"][None])[0]
    got = cached.fetch(1)["moments"]
    assert got.dtype == torch.float32
    assert torch.equal(got, exact.to(getattr(torch, dtype)).float())


@pytest.mark.parametrize("case", ["edited", "new", "codec", "never"])
def test_training_refuses_a_cache_that_does_not_fit(root: Path, tmp_path: Path, case: str) -> None:
    if case != "never":
        build(root, tmp_path / "c")
    if case == "edited":
        photo(31, 17).save(root / "class1" / "3.png")
    if case == "new":
        photo(31, 17).save(root / "class1" / "new.png")
    codec = HalvingCodec("other weights" if case == "codec" else "halving")
    cached = CachedLatents(ImageFolder(root, image_size=8), tmp_path / "c")
    with pytest.raises(DataError, match=r"(?s)does not fit.*png.*prepare latents"):
        cached.bind_codec(codec)
    with pytest.raises(UsageError, match="bind_codec"):
        cached.fetch(0)
    with pytest.raises(UsageError, match="there is no codec"):
        cached.bind_codec(None)


def test_unreadable_images_are_named_and_left_to_max_bad(root: Path, tmp_path: Path) -> None:
    (root / "class1" / "1.png").write_bytes(b"torn")
    report = build(root, tmp_path / "c")
    assert counts(report) == (0, 6, 1)
    assert "class1/1.png" in report.bad[0]
    cached = CachedLatents(ImageFolder(root, image_size=8), tmp_path / "c")
    cached.bind_codec(HalvingCodec())
    (micro,) = next(batches(SampleStream(cached, seed=0, max_bad=1), batch_size=7, per_device=7))
    assert len(micro["bad"]) == 1
    with pytest.raises(DataError, match="max_bad=0"):
        next(batches(SampleStream(cached, seed=0), batch_size=7, per_device=7))


def flip_bit(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_is_found_by_reading_and_mended_by_building(root: Path, tmp_path: Path) -> None:
    build(root, tmp_path / "c")
    (shard,) = (tmp_path / "c").glob("shard-*")
    flip_bit(shard, shard.stat().st_size // 2)  # within the moments
    cached = CachedLatents(ImageFolder(root, image_size=8), tmp_path / "c")
    cached.bind_codec(HalvingCodec())
    failures = 0
    for index in range(7):
        try:
            cached.fetch(index)
        except DataError as error:
            failures += 1
            assert "damaged" in str(error)  # noqa: PT017
    assert failures == 1
    report = build(root, tmp_path / "c")
    assert counts(report) == (6, 1, 0)
    assert len(report.damaged) == 1
    assert counts(build(root, tmp_path / "c")) == (7, 0, 0)


def test_a_flipped_bit_in_a_key_is_found_too(root: Path, tmp_path: Path) -> None:
    build(root, tmp_path / "c")
    (shard,) = (tmp_path / "c").glob("shard-*")
    flip_bit(shard, -9)  # the keys lie last
    with pytest.raises(DataError, match="does not fit"):
        CachedLatents(ImageFolder(root, image_size=8), tmp_path / "c").bind_codec(HalvingCodec())
    report = build(root, tmp_path / "c")
    assert counts(report) == (6, 1, 0)
    assert len(report.damaged) == 1


@pytest.mark.parametrize("damage", ["truncate", "garbage", "empty"])
def test_a_broken_shard_is_named_and_built_again(root: Path, tmp_path: Path, damage: str) -> None:
    build(root, tmp_path / "c")
    (shard,) = (tmp_path / "c").glob("shard-*")
    data = shard.read_bytes()
    shard.write_bytes({"truncate": data[:-100], "garbage": b"x" * 200, "empty": b""}[damage])
    report = build(root, tmp_path / "c")
    assert counts(report) == (0, 7, 0)
    assert shard.name in report.damaged[0]


def test_a_killed_build_goes_on_where_it_was(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latent_cache, "SHARD_BYTES", 1)  # a shard for each batch of three

    class Killed(BaseException):
        pass

    class Mortal(HalvingCodec):
        def moments(self, pixels: Tensor) -> Tensor:
            if self.encoded >= 12:  # two batches and their mirror images
                raise Killed
            return super().moments(pixels)

    with pytest.raises(Killed):
        build(root, tmp_path / "c", Mortal())
    assert len(LatentStore(tmp_path / "c").places) == 6
    assert counts(build(root, tmp_path / "c")) == (6, 1, 0)


@pytest.mark.parametrize("operation", ["save", "fsync", "replace"])
def test_a_failing_disk_is_one_error_and_leaves_no_part(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if operation == "replace":
            patch.setattr(Path, "replace", full)
        else:
            place = "genzoo.core.tensor_layout.as_bytes" if operation == "save" else "os.fsync"
            patch.setattr(place, full)
        with pytest.raises(DataError, match=r"(?s)cannot be written.*No space left"):
            build(root, tmp_path / "c")
    assert list((tmp_path / "c").iterdir()) == []
    assert counts(build(root, tmp_path / "c")) == (0, 7, 0)


def test_a_lost_stamp_table_only_costs_time(root: Path, tmp_path: Path) -> None:
    build(root, tmp_path / "c")
    (stamps,) = (tmp_path / "c").glob("stamps-*")
    for data in (b"garbage", None):
        stamps.write_bytes(data) if data else stamps.unlink()
        cached = CachedLatents(ImageFolder(root, image_size=8), tmp_path / "c")
        cached.bind_codec(HalvingCodec())
        assert cached.fetch(6)["moments"].shape == (6, 4, 4)


def test_with_stamps_binding_reads_no_image(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(root, tmp_path / "c")
    cached = CachedLatents(ImageFolder(root, image_size=8), tmp_path / "c")

    def forbidden(self: ImageFolder, index: int) -> bytes:
        raise AssertionError(f"item {index} was read")

    monkeypatch.setattr(ImageFolder, "content", forbidden)
    cached.bind_codec(HalvingCodec())
    assert cached.fetch(0)["moments"].shape == (6, 4, 4)


def test_workers_and_duplicates_build_the_same(root: Path, tmp_path: Path) -> None:
    (root / "class0" / "copy.png").write_bytes((root / "class1" / "1.png").read_bytes())
    assert counts(build(root, tmp_path / "one")) == (1, 7, 0)
    assert counts(build(root, tmp_path / "two", num_workers=2)) == (1, 7, 0)
    one, two = LatentStore(tmp_path / "one"), LatentStore(tmp_path / "two")
    assert one.places.keys() == two.places.keys()
    assert all(torch.equal(one.read(key), two.read(key)) for key in one.places)


def test_any_data_set_can_be_cached_when_its_augmentation_can(tmp_path: Path) -> None:
    digits = Digits(split="test")
    report = build_latent_cache(digits, HalvingCodec(), tmp_path / "c", batch_size=64)
    assert report.total == 359
    assert report.built + report.reused == 359
    cached = CachedLatents(digits, tmp_path / "c")
    cached.bind_codec(HalvingCodec())
    assert cached.fetch(5, generator_for(0))["moments"].shape == (2, 4, 4)
    assert cached.fetch(5)["class_labels"] == digits.labels[5]

    class Jittered(Digits):
        augments = True

    with pytest.raises(DataError, match="augmentation"):
        build_latent_cache(Jittered(), HalvingCodec(), tmp_path / "c")


def test_moments_that_do_not_fit_the_dtype_stop_the_build(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not finite as torch\.float16"):
        build(root, tmp_path / "c", HalvingCodec(value=1e6), dtype="float16")
    with pytest.raises(DataError, match="not as 'int8'"):
        build(root, tmp_path / "c", dtype="int8")


def test_many_shards_are_read_with_few_open_files(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latent_cache, "SHARD_BYTES", 1)
    monkeypatch.setattr(latent_store, "_OPEN_SHARDS", 2)
    build(root, tmp_path / "c")
    cached = CachedLatents(ImageFolder(root, image_size=8), tmp_path / "c")
    cached.bind_codec(HalvingCodec())
    for index in (0, 6, 3, 0, 5, 6):
        expected = HalvingCodec().moments(cached.images.fetch(index)["pixels"][None])[0]
        assert torch.equal(cached.fetch(index)["moments"], expected)
    assert cached.rows.reader is not None
    assert len(cached.rows.reader._open) == 2
