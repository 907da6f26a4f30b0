"""A disk that hiccups costs nothing; pictures that were replaced on the sly are noticed."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hostile_images import photo
from latent_cases import HalvingCodec, build, counts, write_pictures

from genzoo.core.errors import DataError
from genzoo.data import latent_store, replaced_items
from genzoo.data.cached_latents import CachedLatents
from genzoo.data.image_folder import ImageFolder
from genzoo.data.latent_check import CacheCheck, check_latent_cache
from genzoo.data.latent_store import LatentStore

HICCUPS = [errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "images")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def cached(root: Path, cache: Path) -> CachedLatents:
    return CachedLatents(ImageFolder(root, image_size=8), cache)


def check(root: Path, cache: Path) -> CacheCheck:
    return check_latent_cache(cached(root, cache), HalvingCodec())


def refuse_shards(patch: pytest.MonkeyPatch, code: int, *, opening: bool) -> None:
    """Every shard fails: when it is opened, or only when all of it is read."""
    read, open_ = Path.read_bytes, latent_store.safe_open

    def failing_read(path: Path) -> bytes:
        if path.name.startswith("shard-"):
            raise OSError(code, os.strerror(code), str(path))
        return read(path)

    def failing_open(path: Path, framework: str) -> Any:
        if opening:  # what safetensors makes of every reason
            raise FileNotFoundError(f"No such file or directory: {path}")
        return open_(path, framework)

    patch.setattr(Path, "read_bytes", failing_read)
    patch.setattr(latent_store, "safe_open", failing_open)


@pytest.mark.parametrize("code", HICCUPS, ids=errno.errorcode.get)
@pytest.mark.parametrize("opening", [True, False], ids=["opening", "reading"])
def test_a_shard_that_the_disk_does_not_give_stays(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, opening: bool
) -> None:
    build(root, tmp_path / "c")
    before = content(tmp_path / "c")
    with monkeypatch.context() as patch:
        refuse_shards(patch, code, opening=opening)
        with pytest.raises(DataError, match=r"(?s)just now; nothing in it was removed.*shard-.*Errno"):
            build(root, tmp_path / "c", prune=True)
    assert content(tmp_path / "c") == before
    assert counts(build(root, tmp_path / "c")) == (7, 0, 0)


def test_training_tells_a_hiccup_from_damage(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(root, tmp_path / "c")
    data = cached(root, tmp_path / "c")
    data.bind_codec(HalvingCodec())
    with monkeypatch.context() as patch:
        refuse_shards(patch, errno.ESTALE, opening=True)
        with pytest.raises(DataError, match="just now"):
            data.fetch(3)
        with pytest.raises(DataError, match="just now"):
            cached(root, tmp_path / "c").bind_codec(HalvingCodec())
    assert data.fetch(3)["moments"].shape == (6, 4, 4)


def test_files_of_others_are_neither_read_nor_removed(root: Path, tmp_path: Path) -> None:
    build(root, tmp_path / "c")
    for name in ("shard-00001-of-00002.safetensors", "stamps-mine.safetensors", ".tmp-notes"):
        (tmp_path / "c" / name).write_text("somebody's")
    report = build(root, tmp_path / "c", prune=True)
    assert report.damaged == []
    assert sum(path.read_bytes() == b"somebody's" for path in (tmp_path / "c").iterdir()) == 3


def test_a_shard_that_another_process_has_pruned_is_passed_over(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(root, tmp_path / "c")
    glob = Path.glob

    def late(folder: Path, pattern: str) -> list[Path]:
        found = list(glob(folder, pattern))
        for path in found:
            path.unlink()
        return found

    monkeypatch.setattr(Path, "glob", late)
    assert LatentStore(tmp_path / "c").places == {}


@pytest.fixture
def replaced(root: Path, tmp_path: Path) -> Path:
    """A cache, and a picture that is another one since, of the same size in bytes and of the same time."""
    picture = root / "class1" / "3.png"
    data = picture.read_bytes()
    picture.write_bytes(data + b"old")
    build(root, tmp_path / "c")
    before = picture.stat()
    picture.unlink()
    picture.write_bytes(data + b"new")
    os.utime(picture, ns=(before.st_atime_ns, before.st_mtime_ns))
    return tmp_path / "c"


def test_training_notices_a_picture_that_was_replaced_under_its_size_and_time(
    root: Path, replaced: Path
) -> None:
    with pytest.raises(DataError, match=r"(?s)1 of 1 images.*class1/3\.png.*prepare latents"):
        cached(root, replaced).bind_codec(HalvingCodec())
    assert counts(build(root, replaced)) == (6, 1, 0)
    cached(root, replaced).bind_codec(HalvingCodec())


def test_pictures_that_were_copied_with_their_times_are_looked_at_in_part(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(root, tmp_path / "c")
    for path in root.rglob("*.png"):
        path.chmod(0o600)
    read: list[int] = []
    monkeypatch.setattr(replaced_items, "MOST_ITEMS", 3)
    monkeypatch.setattr(replaced_items, "_differs", lambda keyring, item, key: read.append(item))
    cached(root, tmp_path / "c").bind_codec(HalvingCodec())
    assert read == [0, 2, 4]
    monkeypatch.setattr(replaced_items, "MOST_BYTES", 1)
    cached(root, tmp_path / "c").bind_codec(HalvingCodec())
    assert read == [0, 2, 4, 0]


def test_verify_names_what_is_wrong_and_writes_nothing(root: Path, replaced: Path) -> None:
    photo(9, 9).save(root / "class0" / "new.png")
    (root / "class0" / "bad.png").write_bytes(b"\x89PNG")
    (shard,) = replaced.glob("shard-*")
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    before = content(replaced)
    found = check(root, replaced)
    assert [Path(name).name for name in found.replaced] == ["3.png"]
    assert [Path(name).name for name in found.missing] == ["new.png"]
    assert ["bad.png" in line for line in found.bad] == [True]
    assert len(found.damaged) == 1
    assert not found.is_whole
    assert content(replaced) == before


def test_verify_of_a_sound_cache_decodes_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(root, tmp_path / "c")
    monkeypatch.setattr(ImageFolder, "fetch", lambda *_: pytest.fail("it decoded a picture"))
    steps: list[tuple[int, int]] = []
    found = check_latent_cache(
        cached(root, tmp_path / "c"), HalvingCodec(), progress=lambda *step: steps.append(step)
    )
    assert found.is_whole
    assert found.problems() == []
    assert steps == [(i, 7) for i in range(1, 8)]
