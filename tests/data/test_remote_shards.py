"""Shards behind URLs are the shards on the disk, item for item; no other store is asked."""

from __future__ import annotations

import pickle
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from data.hostile_images import photo

from genzoo.api.commands.shards import prepare_shards_command
from genzoo.api.preparation.shards import prepare_shards
from genzoo.core.errors import DataError, MissingDependencyError, UsageError
from genzoo.data import shard_places
from genzoo.data.image_shards import ImageShards, image_shards
from genzoo.data.sample_stream import SampleStream, batches
from genzoo.data.shard_index import make_index
from genzoo.data.shard_places import RemoteFile

fsspec = pytest.importorskip("fsspec", reason="the extra `remote` is not installed")


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Five captioned pictures in two shards, with their indices."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in range(5):
        photo(20 + number, 18).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.cls").write_text(f"{number % 2}")
        (tmp_path / f"{number}.txt").write_text(f"picture {number}")
        with tarfile.open(folder / f"part-{number // 3}.tar", "a", format=tarfile.USTAR_FORMAT) as archive:
            for extension in ("png", "cls", "txt"):
                archive.add(tmp_path / f"{number}.{extension}", f"{number}.{extension}")
    prepare_shards(folder)
    return folder


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, shards: Path, tmp_path: Path) -> str:
    """The same shards, with their indices beside them, behind a URL."""
    address = f"memory://bucket/{tmp_path.name}" if request.param == "memory" else f"file://{shards}"
    if request.param == "memory":
        for path in shards.iterdir():
            with fsspec.open(f"{address}/{path.name}", "wb") as file:
                file.write(path.read_bytes())
    return address


def opened(root: str | Path, **options: Any) -> ImageShards:
    dataset = image_shards(root, image_size=8, captions=True, **options)
    assert isinstance(dataset, ImageShards)
    return dataset


def same_items(one: ImageShards, other: ImageShards) -> None:
    assert one.fingerprint == other.fingerprint
    assert len(one) == len(other) == 5
    for index in range(5):
        ours, theirs = one.fetch(index), other.fetch(index)
        assert ours["pixels"].equal(theirs["pixels"])
        assert ours["class_labels"].equal(theirs["class_labels"])
        assert ours["captions"] == theirs["captions"] == f"picture {index}"


def test_items_are_those_of_the_disk(shards: Path, url: str, tmp_path: Path) -> None:
    # an index beside a shard knows its size and its ends, which settle another time
    same_items(opened(url), opened(shards))
    prepare_shards(url, tmp_path / "indices")
    same_items(opened(url, index=tmp_path / "indices"), opened(shards))


def test_an_index_of_dali_behind_a_url_is_used(url: str, shards: Path) -> None:
    local = opened(shards)
    for shard in local.shards:
        rows = [shard.places[row].tolist() for row in range(len(shard))]
        cls = [offset + 512 + -(-size // 512) * 512 for offset, size, *_ in rows]
        lines = [
            f"png {offset} {size} {key}.png cls {label} 1 {key}.cls txt {text} {length} {key}.txt"
            for key, label, (offset, size, text, length) in zip(shard.keys[:], cls, rows, strict=True)
        ]
        name = shard.path.name
        with fsspec.open(f"{url}/{name.removesuffix('.tar')}.idx", "w") as file:
            file.write("\n".join([f"v1.2 {len(lines)}", *lines]) + "\n")
        system, path = fsspec.url_to_fs(f"{url}/{name}.index.safetensors")
        system.rm(path)
    remote = opened(url)
    assert not any(shard.checked for shard in remote.shards)
    assert remote.fetch(4)["captions"] == "picture 4"
    assert remote.fetch(3)["class_labels"] == 1


def test_the_command_takes_urls_and_wants_a_folder_for_the_indices(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    indices = tmp_path / "indices"
    prepare_shards_command(url, str(indices))
    assert "2 shards, 5 samples: 2 indexed" in capsys.readouterr().out
    assert len(list(indices.glob("part-*.tar.index.safetensors"))) == 2
    with pytest.raises(UsageError, match="--output"):
        make_index(RemoteFile(f"{url}/part-0.tar"))


def test_order_is_that_of_one_process_and_goes_on_from_the_middle(url: str, shards: Path) -> None:
    dataset, local = opened(url), opened(shards)

    def pixels(data: ImageShards, rank: int, world: int, start: int = 0) -> list[torch.Tensor]:
        stream = SampleStream(data, seed=1, max_bad=0)
        made = batches(
            stream, batch_size=4, per_device=4 // world, rank=rank, world=world, start_step=start,
            num_workers=0, pin_memory=False,
        )  # fmt: skip
        return [torch.cat([batch["pixels"] for batch in next(made)]) for _ in range(3 - start)]

    alone = pixels(local, 0, 1)
    halves = [torch.cat(pair) for pair in zip(pixels(dataset, 0, 2), pixels(dataset, 1, 2), strict=True)]
    assert all(ours.equal(theirs) for ours, theirs in zip(halves, alone, strict=True))
    assert pixels(dataset, 0, 1, start=2)[0].equal(alone[2])


def test_it_travels_without_connections(url: str) -> None:
    dataset = opened(url)
    before = dataset.fetch(3)["pixels"]
    sent = pickle.dumps(dataset)
    assert b"FileSystem" not in sent
    assert pickle.loads(sent).fetch(3)["pixels"].equal(before)


def test_a_shard_that_shrank_is_told(shards: Path) -> None:
    dataset = opened(f"file://{shards}")
    path = shards / "part-1.tar"
    path.write_bytes(path.read_bytes()[:540])
    with pytest.raises(DataError, match=r"(?s)gives 28 of .* bytes.*part-1\.tar: 3"):
        dataset.fetch(3)


@pytest.mark.parametrize(
    "url",
    ["github://a:b@main/x", "ftp://host/x", "zip://x::file:///a.zip", "simplecache::s3://b/x", "http://h/x",
     "memory://a/../b", "s3://b/https://x"],
)  # fmt: skip
def test_other_stores_are_not_asked(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsspec, "filesystem", lambda *args: pytest.fail("it was asked"))
    with pytest.raises(DataError, match="shards are not read from there"):
        image_shards(url, image_size=8)


def test_a_store_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(protocol: str) -> Any:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    with pytest.raises(MissingDependencyError, match=r"genzoo\[s3\]"):
        image_shards("s3://bucket/folder", image_size=8)
    with pytest.raises(MissingDependencyError, match=r"genzoo\[gcs\]"):
        image_shards("gs://bucket/folder", image_size=8)


def test_nothing_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no shards here"):
        image_shards(f"file://{tmp_path}", image_size=8)


def test_a_store_that_does_not_answer_is_asked_again(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, waits = opened(f"file://{shards}"), list[float]()
    monkeypatch.setattr(shard_places.time, "sleep", waits.append)
    system = type(fsspec.filesystem("file"))
    read, failures = system.cat_file, [OSError("reset"), OSError("reset")]

    def unsteady(self: Any, *args: Any, **options: Any) -> bytes:
        if failures:
            raise failures.pop()
        return read(self, *args, **options)

    monkeypatch.setattr(system, "cat_file", unsteady)
    assert dataset.content(1)[:4] == b"\x89PNG"
    assert waits == [0.5, 2.0]
    failures += [OSError("down")] * 4
    with pytest.raises(DataError, match=r"(?s)the shard cannot be read.*down"):
        dataset.content(1)
