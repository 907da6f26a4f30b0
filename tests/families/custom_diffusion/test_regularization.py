"""Regularisation pictures: three sources, one folder layout, and what training reads of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from families.custom_diffusion.conftest import draw_pictures
from PIL import Image

from genzoo.cli import main
from genzoo.core.errors import DataError, UsageError, WeightsError
from genzoo.data.captioned import Captioned, read_collection
from genzoo.families.custom_diffusion.data.collection import select, similarities
from genzoo.families.custom_diffusion.data.pictures import regularisation_pictures
from genzoo.families.custom_diffusion.data.regularization import from_folder, generated, retrieved
from genzoo.pretrained.clip import Clip, load_clip

CAPTIONS = ("a cat", "a cat on a sofa", "my kitten", "a red car", "two boats at sea", "a cat in the snow")


@pytest.fixture(scope="module")
def encoder(clip: Path) -> Clip:
    return load_clip(clip)


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Six captioned pictures of 20 pixels and more, beside one that is no picture."""
    folder = draw_pictures(tmp_path / "collection", 6, seed=7)
    (folder / "broken.png").write_bytes(b"no picture")
    rows = [f"{index}.png,{caption},http://x/{index}" for index, caption in enumerate(CAPTIONS)]
    table = ["file_name,caption,url", *rows, "broken.png,a cat,", "absent.png,a cat,"]
    (folder / "metadata.csv").write_text("\n".join(table) + "\n")
    return folder


def test_a_collection_with_captions_beside_it_skips_hidden_files(tmp_path: Path) -> None:
    folder = draw_pictures(tmp_path / "photos", 2)
    for name in ("10.png", "._0.png", ".thumbs/0.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"whatever")
    for path in [*folder.glob("*.png"), *folder.glob(".thumbs/*.png")]:
        path.with_suffix(".txt").write_text(f"a {path.stem}\n")
    found = read_collection(folder)
    assert [one.path.name for one in found] == ["0.png", "1.png", "10.png"]
    assert [one.caption for one in found] == ["a 0", "a 1", "a 10"]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_layout_is_the_official_one_and_survives_a_move(tmp_path: Path) -> None:
    source = draw_pictures(tmp_path / "photos", 4)
    made = from_folder(source, tmp_path / "class", class_name="cat", num=3)
    assert sorted(path.name for path in made.iterdir()) == [
        "caption.txt",
        "images",
        "images.txt",
        "scores.json",
        "urls.txt",
    ]
    names = lines(made / "images.txt")
    assert names == [str(path) for path in sorted((made / "images").iterdir())]
    assert len(names) == len(lines(made / "urls.txt")) == 3
    assert lines(made / "caption.txt") == ["cat"] * 3
    moved = Path(shutil.move(made, tmp_path / "elsewhere"))
    found = regularisation_pictures(moved, None)
    assert [found.load(k).size for k in range(3)] == [(24, 20), (24, 23), (24, 26)]


def test_fewer_pictures_than_asked_are_refused(tmp_path: Path) -> None:
    source = draw_pictures(tmp_path / "photos", 2)
    with pytest.raises(DataError, match="has 2 pictures, not 3"):
        from_folder(source, tmp_path / "class", class_name="cat", num=3)
    assert not (tmp_path / "class").exists()
    with pytest.raises(UsageError, match="exists already"):
        generated("nowhere", source, class_name="cat")


def test_painted_pictures_depend_on_seed_and_index_alone(sd: Path, tmp_path: Path) -> None:
    options = {"class_name": "cat", "sampler": {"steps": 2}, "batch_size": 2}
    three = generated(sd, tmp_path / "three", num=3, **options)
    two = generated(sd, tmp_path / "two", num=2, **options)
    other = generated(sd, tmp_path / "other", num=2, seed=1, **options)
    first, second, third = (
        sorted(path.name for path in (f / "images").iterdir()) for f in (three, two, other)
    )
    assert first[:2] == second
    assert not set(second) & set(third)
    assert set(lines(three / "caption.txt")) == {"photo of a cat"}
    with Image.open(three / "images" / first[0]) as picture:
        assert picture.size == (16, 16)


def test_nearest_captions_are_found_and_their_features_kept(
    encoder: Clip, collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions = [one.caption for one in read_collection(collection)]
    queries = ["cat", "photo of a cat"]
    scores = similarities(encoder, captions, queries, cache=tmp_path / "cache")
    features, wanted = encoder.encode(captions), encoder.encode(queries)
    torch.testing.assert_close(scores, (features @ wanted.T).amax(1), atol=2e-3, rtol=0)
    (kept,) = (tmp_path / "cache").iterdir()
    assert encoder.tag in kept.name
    asked: list[int] = []
    encode = encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda texts: asked.append(len(texts)) or encode(texts))
    assert torch.equal(similarities(encoder, captions, queries, cache=tmp_path / "cache"), scores)
    assert asked == [2]


def test_retrieval_takes_the_best_readable_pictures_and_holds_out_others(
    encoder: Clip, collection: Path, tmp_path: Path
) -> None:
    options = {"class_name": "cat", "encoder": encoder, "min_size": 8}
    made = retrieved(
        collection, tmp_path / "class", num=2, held_out=2, threshold=-1.0, cache=tmp_path / "c", **options
    )
    about = json.loads((made / "scores.json").read_text())
    scores = list(about["scores"].values())
    assert scores == sorted(scores, reverse=True)
    assert about["encoder"] == encoder.tag
    held = made / "held_out"
    assert not set(lines(made / "urls.txt")) & set(lines(held / "urls.txt"))
    assert max(json.loads((held / "scores.json").read_text())["scores"].values()) <= min(scores)
    assert set(lines(made / "caption.txt") + lines(held / "caption.txt")) <= set(CAPTIONS)
    with pytest.raises(DataError, match=r"has 6 fitting pictures of 'cat', not 7") as caught:
        retrieved(collection, tmp_path / "more", num=7, threshold=-1.0, **options)
    assert "2 unreadable" in str(caught.value)


def test_threshold_is_kept_unless_relaxed(
    encoder: Clip, collection: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"class_name": "cat", "encoder": encoder, "min_size": 8, "num": 4, "threshold": 0.9999}
    with pytest.raises(DataError, match="fitting pictures"):
        retrieved(collection, tmp_path / "class", **options)
    made = retrieved(collection, tmp_path / "class", relax=True, **options)
    assert json.loads((made / "scores.json").read_text())["lowest"] < 0.9999
    assert "below the threshold" in caplog.text


def test_repeated_and_small_pictures_are_left_out(tmp_path: Path) -> None:
    folder = draw_pictures(tmp_path / "photos", 3, seed=3)
    with Image.open(folder / "0.png") as picture:
        picture.resize((48, 40), Image.Resampling.NEAREST).save(folder / "copy.png")
    Image.new("RGB", (8, 8)).save(folder / "small.png")
    names = ("0.png", "copy.png", "small.png", "1.png", "2.png")
    pictures = [Captioned(folder / name, "a cat") for name in names]
    found = select(pictures, torch.linspace(1, 0.5, 5), num=5, threshold=0.1, min_size=16)
    assert [one.path.name for one, _ in found.chosen] == ["0.png", "1.png", "2.png"]
    assert (found.num_repeated, found.num_small, found.num_similar) == (1, 1, 5)


def test_collections_come_as_tables_and_as_files_side_by_side(tmp_path: Path) -> None:
    folder = draw_pictures(tmp_path / "photos", 2)
    (folder / "0.txt").write_text("a cat\n")
    assert read_collection(folder) == [Captioned(folder / "0.png", "a cat")]
    (tmp_path / "list.jsonl").write_text('{"image": "photos/1.png", "text": "a dog"}\n')
    assert read_collection(tmp_path / "list.jsonl") == [Captioned(tmp_path / "photos/1.png", "a dog")]
    (tmp_path / "odd.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="no column of pictures"):
        read_collection(tmp_path / "odd.csv")
    with pytest.raises(DataError, match="no such collection"):
        read_collection(tmp_path / "absent")


def test_encoders_need_their_weights(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs a file of weights"):
        load_clip("ViT-L-14")
    with pytest.raises(UsageError, match="did you mean"):
        load_clip("ViT-L-15", weights=clip / "open_clip_model.safetensors")
    with pytest.raises(WeightsError, match=r"open_clip_config\.json cannot be read"):
        load_clip(tmp_path)


def test_command_prepares_a_folder(clip: Path, collection: Path, tmp_path: Path) -> None:
    given = ["prepare", "regularization", "cat", "-o", str(tmp_path / "class"), "--num", "2"]
    found = ["--collection", str(collection), "--clip", str(clip), "--min-size", "8", "--relax"]
    for arguments, code in (([*given, *found], 0), ([*given, "--folder", "a", "--base", "b"], 2)):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert (ended.value.code or 0) == code
    assert len(lines(tmp_path / "class" / "images.txt")) == 2
