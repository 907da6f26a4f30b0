"""The embedded data are what NOTICE says they are, and the data sets built on them keep their facts."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import genzoo.assets
from genzoo.assets import asset
from genzoo.core.errors import DataError
from genzoo.core.seeds import generator_for
from genzoo.data.digits import Digits
from genzoo.data.emoji import Emoji, load_concepts
from genzoo.data.latent_keys import has_flips
from genzoo.data.sample_stream import SampleStream, batches

ASSETS = Path(genzoo.assets.__file__).parent
SHA256 = {
    "digits.safetensors": "9ac5703435d007b62986e8aa6e4f747601e66ef96ee870f22027068232b88e25",
    "emoji/meta.json": "01ee48c3bf1da198280fcda49954ffb292df930a014d3268a6f9dd375b1403ae",
    "emoji/noto_64.webp": "8b88c1d69173630781f05dc848eb0bd03382bf87aa4c59bb44e3bb20a43d9412",
    "emoji/fluent_flat_64.webp": "0baed5cb697f944b4e5ebe1d31be71403af64dbab8636f7a8917f8b598dfc950",
    "emoji/fluent_3d_64.webp": "159a2f66eeb80b007fccb26ac45dc7ca7b0f6adf34e1ce88a2703dba4e3e36a6",
}


@pytest.mark.parametrize("name", SHA256)
def test_embedded_files_are_unchanged(name: str) -> None:
    assert hashlib.sha256(asset(name).read_bytes()).hexdigest() == SHA256[name]


@pytest.mark.parametrize("name", SHA256)
def test_every_embedded_file_is_named_in_notice(name: str) -> None:
    assert name in (ASSETS / "NOTICE").read_text()


def test_everything_that_ships_beside_code_is_named_in_notice() -> None:
    own = {"NOTICE", "licenses", "__init__.py", "shipped.py", "__pycache__"}
    shipped = {
        f"{path.relative_to(ASSETS).as_posix()}{'/' if path.is_dir() else ''}"
        for folder in (ASSETS, ASSETS / "emoji", ASSETS / "weights")
        for path in folder.iterdir()
        if path.name not in own
        and path.suffix != ".py"
        and path not in (ASSETS / "emoji", ASSETS / "weights")
    }
    notice = (ASSETS / "NOTICE").read_text()
    assert [name for name in sorted(shipped) if name.removeprefix("emoji/") not in notice] == []


def test_licence_texts_are_there() -> None:
    texts = {path.name: path.read_text() for path in (ASSETS / "licenses").iterdir()}
    assert "Apache License" in texts["Apache-2.0.txt"]
    assert "END OF TERMS AND CONDITIONS" in texts["Apache-2.0.txt"]
    assert "Copyright (c) Microsoft Corporation" in texts["fluent-emoji-MIT.txt"]
    assert "Permission is hereby granted, free of charge" in texts["fluent-emoji-MIT.txt"]
    assert "The scikit-learn developers" in texts["scikit-learn-BSD-3-Clause.txt"]
    assert "Permission is hereby granted, free of charge" in texts["open-clip-MIT.txt"]
    notice = (ASSETS / "NOTICE").read_text()
    assert all(f"licenses/{name}" in notice for name in texts)


def test_a_missing_asset_is_an_error_with_its_place() -> None:
    with pytest.raises(DataError, match=r"(?s)'nothing\.bin' is missing.*assets"):
        asset("nothing.bin")


def test_digits_are_the_uci_test_set() -> None:
    digits = Digits()
    assert (len(digits), digits.sample_shape, digits.num_classes) == (1797, (1, 8, 8), 10)
    per_class = digits.labels.bincount().tolist()
    assert per_class == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert digits.labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    item = digits.fetch(0)
    assert item["pixels"].dtype == torch.float32
    assert ((item["pixels"][0, 0] + 1) * 8).tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert digits.pixels.min() == -1
    assert digits.pixels.max() == 1


def test_digit_splits_part_the_whole() -> None:
    everything, train, test = (Digits(split=split) for split in ("all", "train", "test"))
    assert (len(train), len(test)) == (1438, 359)
    assert torch.equal(test.pixels, everything.pixels[4::5])
    rows = {image.numpy().tobytes() for image in train.pixels} & {
        image.numpy().tobytes() for image in test.pixels
    }
    assert not rows
    assert (
        len({everything.fingerprint, train.fingerprint, test.fingerprint, Digits(image_size=16).fingerprint})
        == 4
    )


@pytest.mark.parametrize(("image_size", "channels"), [(16, 1), (32, 3)])
def test_larger_digits_are_smooth_and_keep_their_mean(image_size: int, channels: int) -> None:
    small, large = Digits(split="test"), Digits(split="test", image_size=image_size, channels=channels)
    assert large.sample_shape == (channels, image_size, image_size) == tuple(large.fetch(3)["pixels"].shape)
    pooled = torch.nn.functional.avg_pool2d(large.pixels, image_size // 8)[:, :1]
    # a cell's mean mixes in its neighbours, so single pixels differ; whole images hardly do
    assert (pooled.mean((1, 2, 3)) - small.pixels.mean((1, 2, 3))).abs().max() < 0.05
    assert large.pixels.abs().max() <= 1


@pytest.mark.parametrize(
    "options", [{"image_size": 12}, {"image_size": 0}, {"split": "val"}, {"channels": 2}]
)
def test_wrong_digit_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="digits:"):
        Digits(**options)


def test_what_is_fetched_can_be_written_to() -> None:
    digits = Digits()
    before = digits.pixels[7].clone()
    digits.fetch(7)["pixels"].zero_()
    digits.fetch_many([7], [None])["pixels"].zero_()
    assert torch.equal(digits.pixels[7], before)


@pytest.fixture(scope="module")
def emoji() -> Emoji:
    return Emoji(image_size=32)


def test_the_emoji_pack_is_complete(emoji: Emoji) -> None:
    assert (len(emoji), emoji.sample_shape, emoji.num_classes) == (4017, (3, 32, 32), 7)
    assert emoji.class_names is not None
    counts = Counter(concept["category"] for concept in load_concepts())
    assert [counts[name] for name in emoji.class_names] == [85, 157, 128, 261, 324, 166, 218]
    assert emoji.labels is not None
    assert emoji.labels.bincount().tolist() == [3 * counts[name] for name in emoji.class_names]
    item = emoji.fetch(1339 + 1)
    assert item["captions"] == "a flat emoji of a joker"
    assert item["class_labels"] == emoji.class_names.index("Activities")
    # every cell is drawn: none is blank, and all are on white
    flat = emoji.images.flatten(1).float()
    assert flat.std(1).min() > 5
    assert (emoji.images[:, :, 0, 0] > 200).float().mean() > 0.9


def test_cells_are_cut_where_they_lie() -> None:
    apples = Emoji(names=["red apple", "green apple"])
    assert apples.captions[:2] == ["a noto emoji of a red apple", "a noto emoji of a green apple"]
    for red, green in apples.images.float().mean((2, 3)).unflatten(0, (3, 2)):
        assert red[0] - red[1] > 20  # more red than green
        assert green[1] - green[0] > -5
        assert (red[0] - red[1]) - (green[0] - green[1]) > 30


def test_half_size_is_the_mean_of_two_by_two(emoji: Emoji) -> None:
    large = Emoji(styles=["noto"], categories=["Food & Drink"])
    small = Emoji(styles=["noto"], categories=["Food & Drink"], image_size=32)
    assert large.sample_shape == (3, 64, 64)
    mean = torch.nn.functional.avg_pool2d(large.fetch(5)["pixels"][None], 2)[0]
    assert (small.fetch(5)["pixels"] - mean).abs().max() <= 1 / 255 + 1e-6


def test_emoji_classes_and_choices() -> None:
    by_name = Emoji(image_size=32, styles=["fluent_3d"], classes="name", categories=["Animals & Nature"])
    assert by_name.num_classes == 157 == len(by_name)
    assert by_name.labels is not None
    assert by_name.labels.tolist() == list(range(157))
    assert by_name.captions[0] == f"a 3d emoji of a {by_name.class_names[0]}"  # type: ignore[index]
    by_style = Emoji(image_size=32, styles=["noto", "fluent_flat"], classes="style", names=["joker"])
    assert by_style.class_names == ["noto", "fluent_flat"]
    assert by_style.fetch(1)["class_labels"] == 1
    none = Emoji(
        image_size=32, styles=["noto"], classes="none", caption="{name} ({category})", names=["joker"]
    )
    assert (none.num_classes, none.fetch(0)["captions"]) == (None, "joker (Activities)")
    assert "class_labels" not in none.fetch(0)
    ordered = Emoji(image_size=32, styles=["noto"], categories=["Objects", "Activities"])
    assert ordered.class_names == ["Objects", "Activities"]


def test_held_out_concepts_are_held_out_in_every_style() -> None:
    options: dict[str, Any] = {
        "image_size": 32,
        "hold_out": ["joker", "Activities"],
        "hold_out_fraction": 0.1,
    }
    two: dict[str, Any] = options | {"styles": ["noto", "fluent_flat"]}
    train, held_out = Emoji(split="train", **two), Emoji(split="held_out", **two)
    assert len(train) + len(held_out) == 2 * 1339
    names = [{item["name"] for item in part.items} for part in (train, held_out)]
    assert not names[0] & names[1]
    assert "joker" in names[1]
    assert train.class_names == held_out.class_names
    assert train.fingerprint != held_out.fingerprint
    assert 0.1 < len(names[1]) / 1339 < 0.22  # Activities are 6 %
    again = Emoji(split="held_out", **options | {"styles": ["noto"]})
    assert {item["name"] for item in again.items} == names[1]


def test_emoji_flip_only_on_request(emoji: Emoji) -> None:
    flipping = Emoji(image_size=32, styles=["noto"], horizontal_flip=True)
    assert flipping.augments
    assert not emoji.augments
    plain = flipping.fetch(9)["pixels"]
    seen = {torch.equal(flipping.fetch(9, generator_for(seed))["pixels"], plain) for seed in range(16)}
    assert seen == {True, False}
    assert torch.equal(emoji.fetch(9, generator_for(1))["pixels"], plain)


def test_emoji_through_the_stream(emoji: Emoji) -> None:
    (micro,) = next(batches(SampleStream(emoji, seed=0), batch_size=5, per_device=5))
    assert micro["pixels"].shape == (5, 3, 32, 32)
    assert [emoji.captions[index] for index in micro["index"]] == micro["captions"]
    assert torch.equal(emoji.fetch(int(micro["index"][2]))["pixels"], micro["pixels"][2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 48}, "image_size 48"),
        ({"styles": ["noto", "apple"]}, "style 'apple'"),
        ({"styles": ["noto", "noto"]}, "twice"),
        ({"styles": []}, "no image is left"),
        ({"classes": "categories"}, "did you mean 'category'"),
        ({"categories": ["Food"]}, "category 'Food'"),
        ({"names": ["jokr"]}, "did you mean 'joker'"),
        ({"hold_out": ["jokr"]}, "did you mean 'joker'"),
        ({"split": "test"}, "split 'test'"),
        ({"split": "held_out"}, "no image is left"),
    ],
)
def test_wrong_emoji_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Emoji(**options)


def test_moved_drawings_are_cut_out_of_the_drawing_with_its_border_repeated() -> None:
    still, moving = (Emoji(styles=["fluent_flat"], max_shift=most) for most in (0, 3))
    assert (still.augments, moving.augments) == (False, True)
    assert torch.equal(moving.fetch(5)["pixels"], still.fetch(5)["pixels"])
    whole = torch.nn.functional.pad(still.fetch(5)["pixels"], (3, 3, 3, 3), mode="replicate")
    places = set()
    for position in range(60):
        pixels = moving.fetch(5, generator_for("moved", position))["pixels"]
        cuts = {(t, left): whole[:, t : t + 64, left : left + 64] for t in range(7) for left in range(7)}
        places |= {place for place, cut in cuts.items() if torch.equal(cut, pixels)}
    assert {top for top, _ in places} == {left for _, left in places} == set(range(7))
    assert any(top != left for top, left in places)


def test_a_drawing_is_mirrored_alike_whether_it_is_moved_or_not() -> None:
    plain, moving = (Emoji(styles=["fluent_flat"], horizontal_flip=True, max_shift=n) for n in (0, 1))
    mirrored = []
    for position in range(12):
        seen, both = (one.fetch(5, generator_for(position))["pixels"] for one in (plain, moving))
        mirrored.append(not torch.equal(seen, plain.fetch(5)["pixels"]))
        whole = torch.nn.functional.pad(seen, (1, 1, 1, 1), mode="replicate")
        cuts = [whole[:, t : t + 64, left : left + 64] for t in range(3) for left in range(3)]
        assert any(torch.equal(cut, both) for cut in cuts)
    assert {True, False} == set(mirrored)


def test_moving_makes_another_data_set_and_has_bounds() -> None:
    assert len({Emoji(styles=["noto"], max_shift=most).fingerprint for most in (0, 1, 2)}) == 3
    for most in (-1, 64):
        with pytest.raises(DataError, match="max_shift"):
            Emoji(styles=["noto"], max_shift=most)


def test_latents_of_moving_drawings_are_not_cached_even_where_mirror_images_are() -> None:
    assert has_flips(Emoji(styles=["noto"], horizontal_flip=True))
    for mirrored in (False, True):
        with pytest.raises(DataError, match="other augmentation than flips"):
            has_flips(Emoji(styles=["noto"], horizontal_flip=mirrored, max_shift=1))
