"""Weights that ship with the package: found by name, unpacked once, and usable by diffusers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from genzoo.assets import asset
from genzoo.core.errors import WeightsError
from genzoo.core.seeds import SampleStreams
from genzoo.data.emoji import Emoji
from genzoo.diffusion.prompted import sample_prompts, schedule_from
from genzoo.pretrained.hub import resolve
from genzoo.pretrained.shipped import shipped
from genzoo.pretrained.text_to_image import load_parts

BASE = "assets:text_to_image_emoji"


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path_factory.getbasetemp() / "shipped"))


def test_every_shipped_folder_says_where_it_comes_from_and_stays_small() -> None:
    folders = [path for path in asset("weights").iterdir() if path.is_dir()]
    assert folders
    for folder in folders:
        assert "Hardware" in (folder / "README.md").read_text(encoding="utf-8")
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 10_000_000


def test_a_packed_base_is_unpacked_once() -> None:
    folder = shipped(BASE)
    assert shipped(f"{BASE}/vae") == folder / "vae"
    assert resolve(BASE, "config.json", subfolder="unet") == folder / "unet/config.json"
    assert (folder / "tokenizer").is_dir()
    before = (folder / "text_encoder/model.safetensors").stat().st_mtime_ns
    assert shipped(BASE) == folder
    assert (folder / "text_encoder/model.safetensors").stat().st_mtime_ns == before
    assert not list(folder.parent.glob(".*"))


@pytest.mark.parametrize(
    ("place", "named"), [("assets:text_to_image_emojy", "did you mean"), (f"{BASE}/../x", "have no")]
)
def test_unknown_names_are_refused(place: str, named: str) -> None:
    with pytest.raises(WeightsError) as caught:
        shipped(place)
    assert named in str(caught.value)


def test_diffusers_loads_the_base_and_genzoo_draws_what_it_was_trained_on() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(str(shipped(BASE)))
    assert pipeline.tokenizer("a red apple").input_ids == [49406, 320, 736, 3055, 49407]
    parts = load_parts(BASE)
    hidden, _ = pipeline.encode_prompt(["a 3d emoji of a red heart"], "cpu", 1, False)
    captions = ["a 3d emoji of a red heart", "a flat emoji of a evergreen tree"]
    torch.testing.assert_close(parts.encode_prompts(captions[:1]).hidden, hidden)
    streams = SampleStreams.from_seeds(0, "sample", positions=range(2))
    heart, tree = sample_prompts(
        parts, schedule_from(parts.scheduler), captions, streams, steps=8, guidance_scale=2.0
    )
    # a heart is red, a tree green, and the corners are white
    assert heart[0, 16, 16] > heart[1, 16, 16] + 0.5
    assert tree[1, 20, 16] > tree[0, 20, 16] + 0.2
    assert heart[:, 30, 1].min() > 0.5


def test_the_held_out_emoji_are_not_in_the_training_captions() -> None:
    held_out = ["cactus", "guitar", "octopus", "owl", "rocket", "strawberry"]
    shown = Emoji(image_size=32, classes="none", split="train", hold_out=held_out)
    assert not [caption for caption in shown.captions if caption.split(" of a ")[1] in held_out]
    assert Path(asset("weights/text_to_image_emoji/unet/config.json")).is_file()
