"""`genzoo sample --npz`: one file that ADM's evaluator streams, and that is judged as the folder is."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genzoo.api.run import Run
from genzoo.api.sampling.npz import pack_samples
from genzoo.cli import main
from genzoo.core.errors import DataError, UsageError
from genzoo.data import array_files
from genzoo.data.array_files import read_array
from genzoo.data.picture_npz import write_picture_npz
from genzoo.data.picture_sets import ArrayPictures, FilePictures, open_pictures
from genzoo.evaluation.evaluate_images import Settings, evaluate


def levels(n: int = 5, height: int = 4, width: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def test_the_command_packs_samples_with_their_labels(
    trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = Path(shutil.copytree(trained.folder, tmp_path / "run")), tmp_path / "out"
    for _ in range(2):  # the same command again is the same folder
        with pytest.raises(SystemExit) as stop:
            main(["sample", str(run), "class_labels=[1,2,3]", "--out", str(out), "--npz"])
        assert not stop.value.code
    (path,) = out.glob("*.npz")
    assert str(path) in capsys.readouterr().out
    pictures = FilePictures.below(out)
    assert not pictures.notes  # the file is expected beside them
    with np.load(path) as content:
        assert content["arr_0"].dtype == np.uint8
        assert content["arr_1"].tolist() == [1, 2, 3]
        assert path.name == "samples_3x{}x{}x3.npz".format(*content["arr_0"].shape[1:3])
        for index in range(3):
            assert np.array_equal(content["arr_0"][index], pictures.read(index))


def test_adms_reader_finds_what_it_streams(tmp_path: Path) -> None:
    """Its name, npy 1.0, C order, uncompressed: read as the evaluator does, rows at a time."""
    array = levels()
    path = write_picture_npz(tmp_path / "x.npz", ArrayPictures(array), [3, 1, 4, 1, 5])
    with zipfile.ZipFile(path) as archive, archive.open("arr_0.npy") as member:
        assert np.lib.format.read_magic(member) == (1, 0)
        shape, by_columns, dtype = np.lib.format.read_array_header_1_0(member)
        assert (shape, by_columns, dtype) == (array.shape, False, np.uint8)
        first = np.frombuffer(member.read(2 * array[0].nbytes), dtype).reshape(2, *shape[1:])
        assert np.array_equal(first, array[:2])
        assert archive.getinfo("arr_0.npy").compress_type == zipfile.ZIP_STORED
    assert read_array(path, "arr_1").tolist() == [3, 1, 4, 1, 5]


def test_an_npz_and_its_folder_have_equal_numbers(tmp_path: Path) -> None:
    array = levels(12, 20, 20)
    for index, picture in enumerate(array):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
    packed = write_picture_npz(tmp_path / "x.npz", FilePictures.below(tmp_path))
    settings = Settings(cache=False)
    both = [
        evaluate(source, protocol="quick-pixels", reference=array[::-1], num=12, settings=settings).metrics
        for source in (tmp_path, packed)
    ]
    assert both[0] == both[1]


def test_large_arrays_stay_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_picture_npz(tmp_path / "x.npz", ArrayPictures(levels()))
    whole = read_array(path)
    monkeypatch.setattr(array_files, "MAPPED_FROM", 10)
    mapped = read_array(path)
    assert isinstance(mapped, np.memmap)
    assert np.array_equal(mapped, whole)
    assert open_pictures(path).content(1) == ArrayPictures(levels()).content(1)
    np.savez_compressed(tmp_path / "packed.npz", arr_0=np.zeros((9, 4, 4, 3), dtype=np.uint8))
    assert not isinstance(read_array(tmp_path / "packed.npz"), np.memmap)
    objects = tmp_path / "objects.npz"
    np.savez(objects, arr_0=np.array([{}, {}] * 40, dtype=object))
    with pytest.raises(DataError, match="Python objects"):
        read_array(objects)


def test_what_is_no_set_of_pictures_is_refused(tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for index in (1, 2):
        Image.new("RGB", (4, 4 * index)).save(mixed / f"{index}.png")
    with pytest.raises(DataError, match=r"2\.png is 8 x 4, the first picture 4 x 4"):
        write_picture_npz(tmp_path / "x.npz", FilePictures.below(mixed))
    assert not (tmp_path / "x.npz").exists()
    with pytest.raises(UsageError, match="1 labels for 5 pictures"):
        write_picture_npz(tmp_path / "x.npz", ArrayPictures(levels()), [1])
    rows = [{"file": "1.png"}, {"file": "3.png"}]
    (mixed / "samples.json").write_text(json.dumps({"samples": rows}))
    assert pack_samples(mixed) is None  # another process is still at it
    rows[1]["file"] = "../secret.png"
    (mixed / "samples.json").write_text(json.dumps({"samples": rows}))
    with pytest.raises(DataError, match="no file of its folder"):
        pack_samples(mixed)
