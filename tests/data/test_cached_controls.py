"""Controls extracted once: the picture's own under every flip, and by the extractor that is asked for."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hostile_images import photo
from torch import Tensor

from genzoo.core.controls import control_fingerprint
from genzoo.core.errors import DataError, UsageError
from genzoo.core.seeds import generator_for
from genzoo.data.cached_controls import CachedControls, ControlCodec
from genzoo.data.cached_latents import CachedLatents
from genzoo.data.control_files import control_facts, control_png, require_extractor
from genzoo.data.controls import Canny
from genzoo.data.image_folder import ImageFolder, image_folder
from genzoo.data.latent_cache import CacheReport, build_latent_cache
from genzoo.data.sample_stream import SampleStream


class Negative:
    """The picture's negative, which follows every crop and flip, in 8 bits; counts what it extracts."""

    channels = 3

    def __init__(self, name: str = "negative") -> None:
        self.fingerprint, self.seen = control_fingerprint(name), 0

    def to(self, device: torch.device | str) -> None:
        self.device = device

    def __call__(self, pixels: Tensor) -> Tensor:
        self.seen += len(pixels)
        return -pixels


class Means:
    """A codec whose moments are the means of 2 x 2 pixels."""

    fingerprint = "means"

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        self.device = device

    def moments(self, pixels: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(pixels, 2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for i in range(5):
        folder = tmp_path / "images" / f"class{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        photo(20 + i, 18).save(folder / f"{i}.png")
    return tmp_path / "images"


def opened(root: Path, cache: Path, **options: object) -> CachedControls:
    dataset = image_folder(root, image_size=8, controls=cache, **options)  # type: ignore[arg-type]
    assert isinstance(dataset, CachedControls)
    return dataset


def build(dataset: CachedControls, extractor: Negative | Canny) -> CacheReport:
    return build_latent_cache(dataset.rows, ControlCodec(extractor), batch_size=2)


def test_a_control_is_cropped_and_mirrored_with_its_picture(root: Path, tmp_path: Path) -> None:
    dataset = opened(root, tmp_path / "c")
    assert build(dataset, Negative()).built == 5
    dataset.bind_control(Negative())
    mirrored = 0
    for index in range(5):
        still = dataset.fetch(index)["pixels"]
        for seed in range(8):
            item = dataset.fetch(index, generator_for(seed))
            assert torch.allclose(item["control"], -item["pixels"], atol=1e-6)
            mirrored += not torch.equal(item["pixels"], still)
    assert 10 < mirrored < 30


def test_controls_keep_step_with_cached_latents(root: Path, tmp_path: Path) -> None:
    dataset = opened(root, tmp_path / "c", latent_cache=tmp_path / "l", latent_dtype="float32")
    assert isinstance(dataset.source, CachedLatents)
    build_latent_cache(dataset.source, Means(), batch_size=2)
    build(dataset, Negative())
    dataset.bind_codec(Means())
    dataset.bind_control(Negative())
    for seed in range(8):
        item = dataset.fetch(3, generator_for(seed))
        assert set(item) == {"moments", "class_labels", "control"}
        assert torch.allclose(item["moments"], -torch.nn.functional.avg_pool2d(item["control"], 2), atol=1e-6)


def test_an_interrupted_extraction_goes_on_and_an_edited_picture_is_extracted_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genzoo.data.latent_cache.SHARD_BYTES", 1)
    extractor = Negative()

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    dataset = opened(root, tmp_path / "c")
    with pytest.raises(KeyboardInterrupt):
        build_latent_cache(dataset.rows, ControlCodec(extractor), batch_size=2, progress=stop)
    assert extractor.seen == 2
    assert build(opened(root, tmp_path / "c"), extractor).reused == 2
    photo(31, 17).save(root / "class1" / "3.png")
    with pytest.raises(DataError, match="does not fit") as caught:
        opened(root, tmp_path / "c").bind_control(extractor)
    assert "3.png" in str(caught.value)
    report = build(opened(root, tmp_path / "c"), extractor)
    assert (report.reused, report.built) == (4, 1)


def test_another_extractor_is_noticed_and_changes_the_fingerprint(root: Path, tmp_path: Path) -> None:
    dataset = opened(root, tmp_path / "c")
    build(dataset, Canny())
    with pytest.raises(UsageError, match="no extractor yet"):
        dataset.fetch(0)
    with pytest.raises(DataError, match="another extractor") as caught:
        dataset.bind_control(Canny(low=50))
    assert "prepare controls" in str(caught.value)
    with pytest.raises(UsageError, match=r"task\.control"):
        dataset.bind_control(None)
    dataset.bind_control(Canny())
    first = dataset.fingerprint
    build(dataset, Canny(low=50))
    dataset.bind_control(Canny(low=50))
    assert dataset.fingerprint != first
    assert ImageFolder(root, image_size=8).fingerprint in first


def test_grey_controls_take_one_channel_and_equal_those_extracted_on_the_way(
    root: Path, tmp_path: Path
) -> None:
    dataset, canny = opened(root, tmp_path / "c", horizontal_flip=False), Canny()
    build(dataset, canny)
    dataset.bind_control(canny)
    assert dataset.rows.fetch(0)["moments"].shape == (1, 8, 8)
    direct = canny(ImageFolder(root, image_size=8).fetch(0)["pixels"][None])[0]
    assert torch.equal(dataset.fetch(0)["control"], direct)
    stream = SampleStream(pickle.loads(pickle.dumps(dataset)), seed=0)
    batch, _ = stream.fetch_batch([0, 1, 2])
    assert batch["control"].shape == (3, 3, 8, 8)


def test_damage_is_named(root: Path, tmp_path: Path) -> None:
    dataset = opened(root, tmp_path / "c")
    build(dataset, Negative())
    dataset.bind_control(Negative())
    shard = next((tmp_path / "c").glob("shard-*"))
    content = bytearray(shard.read_bytes())
    content[-5] ^= 255
    shard.write_bytes(bytes(content))
    with pytest.raises(DataError, match="cached control cannot be read") as caught:
        [dataset.fetch(index) for index in range(5)]
    assert "prepare controls" in str(caught.value)


def test_fractions_are_not_stored_as_bytes(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="uint8 would lose"):
        build_latent_cache(ImageFolder(root, image_size=8), Means(), tmp_path / "c", dtype="uint8")


def test_a_file_tells_who_made_it(tmp_path: Path) -> None:
    path, control = tmp_path / "edges.png", torch.full((3, 4, 5), 0.2)
    path.write_bytes(control_png(control, extractor="canny-1", source="abc"))
    assert control_facts(path) == {"genzoo:extractor": "canny-1", "genzoo:source": "abc"}
    ours, other = (
        SimpleNamespace(fingerprint="canny-1"),
        SimpleNamespace(fingerprint="hed-2", described="hed"),
    )
    require_extractor(path, ours)
    with pytest.raises(UsageError, match="it says canny-1; the model was trained with hed-2"):
        require_extractor(path, other)
    path.write_bytes(control_png(control, extractor="hed-1", settings="hed"))  # alike but for its weights
    with pytest.raises(UsageError, match="it says hed-1; the model was trained with hed-2"):
        require_extractor(path, other)
    photo(5, 4).save(tmp_path / "foreign.png")
    require_extractor(tmp_path / "foreign.png", other)
    (tmp_path / "cut.png").write_bytes(path.read_bytes()[:40])
    assert control_facts(tmp_path / "cut.png") == {}
