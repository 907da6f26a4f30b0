"""Several processes fill one cache: each picture once, one table, and a dead one costs only its share."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from data.hostile_images import photo
from data.latent_cases import HalvingCodec, build, write_pictures
from forked_group import run_together
from torch import Tensor

from genzoo.api.preparation.control_folder import extract_folder
from genzoo.core.errors import DataError
from genzoo.core.processes import World
from genzoo.data.cached_latents import CachedLatents
from genzoo.data.image_folder import ImageFolder
from genzoo.data.latent_cache import CacheReport
from genzoo.data.latent_keys import STAMPS, Keyring

pytestmark = pytest.mark.distributed


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "pictures")


class Noting(HalvingCodec):
    """Appends a byte to a file for each picture that it encodes, in whatever process."""

    def __init__(self, notes: Path) -> None:
        super().__init__()
        self.notes = notes

    def moments(self, pixels: Tensor) -> Tensor:
        with self.notes.open("ab") as file:
            file.write(b"." * len(pixels))
        return super().moments(pixels)


class Deadly(HalvingCodec):
    """Kills the second process when it encodes."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.rank = world.rank

    def moments(self, pixels: Tensor) -> Tensor:
        if self.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().moments(pixels)


def as_dict(report: CacheReport) -> dict[str, Any]:
    return {name: getattr(report, name) for name in ("total", "reused", "built", "bad", "unused", "pruned")}


def rows(root: Path, cache: Path) -> list[Tensor]:
    cached = CachedLatents(ImageFolder(root, image_size=8), cache)
    cached.bind_codec(HalvingCodec())
    readable = [index for index in range(len(cached)) if cached.rows.has(index, 0)]
    return [cached.fetch(index)["moments"] for index in readable]


@pytest.mark.parametrize("world", [2, 3])
def test_each_picture_is_encoded_once_and_the_cache_is_that_of_one(
    root: Path, tmp_path: Path, world: int
) -> None:
    (root / "class0" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    notes = tmp_path / "notes"
    alone = as_dict(build(root, tmp_path / "alone"))
    codec = Noting(notes)
    reports = run_together(
        lambda group: as_dict(build(root, tmp_path / "shared", codec, world=group)),
        tmp_path / "group",
        world=world,
    )
    assert reports == [alone] * world
    assert alone["built"] == 7
    assert len(notes.read_bytes()) == 2 * 7  # each with its mirror image
    tables = [path.name for path in (tmp_path / "shared").iterdir() if STAMPS.fullmatch(path.name)]
    assert len(tables) == 1
    found = rows(root, tmp_path / "shared")
    assert len(found) == 7
    pairs = zip(found, rows(root, tmp_path / "alone"), strict=True)
    assert all(ours.equal(theirs) for ours, theirs in pairs)


def test_a_killed_process_ends_the_work_and_the_next_call_does_the_rest(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    results = run_together(
        lambda group: as_dict(build(root, cache, Deadly(group), world=group)), tmp_path / "group", limit=60
    )
    assert results[1] == -signal.SIGKILL
    assert isinstance(results[0], Exception)
    notes = tmp_path / "notes"
    again = build(root, cache, Noting(notes))
    assert (again.reused, again.built) == (4, 3)  # the first one's share was kept
    assert len(notes.read_bytes()) == 2 * 3


def test_an_error_in_one_process_is_raised_in_all(root: Path, tmp_path: Path) -> None:
    def work(group: World) -> Any:
        codec = HalvingCodec(value=float("inf") if group.rank else -3.0)
        return build(root, tmp_path / "cache", codec, world=group)

    results = run_together(work, tmp_path / "group", limit=60)
    assert all(isinstance(error, DataError) and "not finite" in str(error) for error in results)


def test_copied_files_are_hashed_once_in_all_and_then_known(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, notes = tmp_path / "cache", tmp_path / "hashed"
    build(root, cache)
    table = next(path for path in cache.iterdir() if STAMPS.fullmatch(path.name))
    noted_at = table.stat().st_mtime_ns
    copied = shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)
    key = Keyring.key

    def noted(self: Keyring, index: int) -> bytes:
        with notes.open("ab") as file:
            file.write(bytes([index]))
        return key(self, index)

    monkeypatch.setattr(Keyring, "key", noted)

    def bind(group: World) -> list[Tensor]:
        cached = CachedLatents(ImageFolder(copied, image_size=8), cache)
        cached.share_work(group)
        cached.bind_codec(HalvingCodec())
        return [cached.fetch(index)["moments"] for index in range(len(cached))]

    first, second = run_together(bind, tmp_path / "group")
    assert all(ours.equal(theirs) for ours, theirs in zip(first, second, strict=True))
    assert sorted(notes.read_bytes()[:7]) == list(range(7))
    before = len(notes.read_bytes())
    cached = CachedLatents(ImageFolder(copied, image_size=8), cache)
    monkeypatch.setattr("genzoo.data.cached_rows.replaced_items", lambda *_, **__: ([], 0))
    cached.bind_codec(HalvingCodec())
    assert len(notes.read_bytes()) == before
    # the others were not read again, and stay suspect of a change under their old size and time
    assert abs(table.stat().st_mtime_ns - noted_at) < 1_000_000


def test_controls_of_a_folder_are_shared_out(tmp_path: Path) -> None:
    source = tmp_path / "pictures"
    source.mkdir()
    for number in range(5):
        photo(24 + number, 20).save(source / f"{number}.png")

    def work(group: World) -> Any:
        report, sheet = extract_folder(source, tmp_path / "shared", "canny", world=group)
        return as_dict(report), sheet.name

    results = run_together(work, tmp_path / "group")
    report, sheet = extract_folder(source, tmp_path / "alone", "canny")
    assert results == [(as_dict(report), sheet.name)] * 2
    names = sorted(path.name for path in (tmp_path / "alone").iterdir())
    assert sorted(path.name for path in (tmp_path / "shared").iterdir()) == names
    assert len(names) == 6
    alike = [(tmp_path / place / name).read_bytes() for name in names for place in ("alone", "shared")]
    assert alike[::2] == alike[1::2]


def test_half_precision_moves_latents_by_less_than_a_thousandth_of_their_noise() -> None:
    # moments of a VAE: means of a few units, log-variances down to -30, where a posterior is a point
    generator = torch.Generator().manual_seed(0)
    mean = 3 * torch.randn(4096, generator=generator)
    log_variance = -30 + 32 * torch.rand(4096, generator=generator)
    noise = torch.randn(4096, generator=generator)

    def drawn(mean: Tensor, log_variance: Tensor) -> Tensor:
        return mean + (0.5 * log_variance).exp() * noise

    exact = drawn(mean, log_variance)
    halved = drawn(mean.half().float(), log_variance.half().float())
    spread = exact.std()
    assert (halved - exact).abs().max() < 2e-3 * spread
    assert (halved - exact).square().mean().sqrt() < 3e-4 * spread
