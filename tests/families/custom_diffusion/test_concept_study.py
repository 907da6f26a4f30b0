"""The study that ends a quick start: its measures on numbers worked out by hand, all of it on a tiny base."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families.custom_diffusion.conftest import entry
from PIL import Image

import genzoo
from genzoo.core.errors import UsageError
from genzoo.core.recipe import load_recipe
from genzoo.core.registry import DATASETS, Entry
from genzoo.families.custom_diffusion.concept_study import concept_study
from genzoo.families.custom_diffusion.data.latent_distances import (
    distances,
    drift,
    latent_features,
    nearest_distance,
    share_found,
    share_named,
)
from genzoo.families.custom_diffusion.files.concept import ConceptDelta
from genzoo.families.custom_diffusion.files.open_concept import open_concept
from genzoo.families.custom_diffusion.files.read_layouts import read_concept
from genzoo.families.custom_diffusion.files.write_layouts import write_concept
from genzoo.pretrained.text_to_image import load_parts

ORIGIN = torch.zeros(1, 4)


def far(*steps: float) -> torch.Tensor:
    """Rows at these distances from the origin."""
    return torch.stack([torch.full((4,), step) for step in steps])


class Captioned:
    """Three plain pictures with captions."""

    captions = ("a red thing", "a green thing", "a grey thing")

    def __len__(self) -> int:
        return len(self.captions)

    def fetch(self, index: int) -> dict[str, Any]:
        return {"pixels": torch.full((3, 16, 16), index / 2 - 0.5), "captions": self.captions[index]}


@pytest.fixture
def captioned(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setitem(DATASETS._entries, "three_captions", Entry(Captioned))
    return {"name": "three_captions"}


def test_distances_do_not_grow_with_the_number_of_features() -> None:
    assert distances(ORIGIN, far(2.0, 3.0)).tolist() == [[2.0, 3.0]]
    assert distances(torch.zeros(1, 9), torch.full((1, 9), 2.0)).tolist() == [[2.0]]


def test_samples_are_compared_with_the_nearest_of_a_concepts_pictures() -> None:
    assert nearest_distance(far(0.0, 5.0), far(1.0, 3.0)) == pytest.approx((1 + 2) / 2)


def test_a_concept_is_found_where_no_other_picture_is_nearer() -> None:
    assert share_found(far(0.0, 4.0, 5.0), far(1.0), far(3.0)) == pytest.approx(1 / 3)


def test_other_captions_are_named_by_their_nearest_picture() -> None:
    assert share_named(far(0.1, 0.2), ["pear", "plum"], far(0.0, 9.0), ["pear", "plum"]) == 0.5


def test_drift_counts_distances_between_captions() -> None:
    before = far(0.0, 2.0)
    assert drift(before, before) == 0
    assert drift(before, before + 1) == pytest.approx(0.5)


def test_features_are_the_scaled_means_of_the_bases_autoencoder(sd: Path) -> None:
    parts = load_parts(sd)
    assert parts.vae is not None
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    found = latent_features(pixels, parts.vae)
    expected = parts.vae.vae.encode(pixels).latent_dist.mean * parts.vae.vae.config.scaling_factor
    torch.testing.assert_close(found, expected.flatten(1))
    assert torch.equal(latent_features(pixels, None), pixels.flatten(1))


def test_a_run_is_studied_with_a_second_concept_and_their_merge(
    sd: Path, pictures: Path, listed: Callable[..., Path], captioned: dict[str, str], tmp_path: Path
) -> None:
    small = ["data.image_size=16", "data.class_crop=centre", "data.augment_size=false", "train.steps=2"]
    small += ["train.batch_size=2", "train.precision=fp32", "train.num_workers=0", "train.tensorboard=false"]
    small += ["optim.lr=1e-2", "sampler.steps=2", "preview.every=0"]
    recipe = load_recipe("custom_diffusion", [f"concepts={listed('cat')}", f"base_model={sd}", *small])
    run = genzoo.train(recipe, output=tmp_path / "run")
    second = {"concepts": [entry(pictures, 2, "pot")]}
    captions = list(Captioned.captions[:2])
    found = concept_study(run, second=second, gallery=captioned, captions=captions, samples_per_prompt=1)
    numbers = {key: value for key, value in found.items() if key not in ("pictures", "merge_report")}
    assert all(value >= 0 for value in numbers.values())
    assert {
        f"{who}_distance_{state}" for who in ("first", "second") for state in ("before", "after", "merged")
    } < set(found)
    assert found["drift_first"] > 0
    with Image.open(found["pictures"]) as sheet:
        # a row each for pictures, before, after and merged of two concepts, and two of other captions
        assert sheet.height == 10 * (64 + 2 + 14)  # enlarged to 64 pixels, between margins, below a label
    merged = read_concept(run.folder / "merged.safetensors")
    assert list(merged.tokens) == ["<new1>", "<new2>"]
    again = concept_study(run, second=second, gallery=captioned, captions=captions, samples_per_prompt=1)
    assert again == found
    with pytest.raises(UsageError, match="second concept"):
        concept_study(run, second={}, gallery=captioned, captions=captions)
    third = {"concepts": [entry(pictures, 3, "pot")]}
    more = concept_study(
        run, second=second, third=third, gallery=captioned, captions=captions, samples_per_prompt=1
    )
    assert list(read_concept(run.folder / "merged.safetensors").tokens) == ["<new1>", "<new2>", "<new3>"]
    assert more["first_distance_after"] == found["first_distance_after"]
    assert {"third_found_merged", "drift_third", "named_third"} < set(more)
    assert "<new3> pot" in Path(more["merge_report"]).read_text()
    with Image.open(more["pictures"]) as sheet:
        assert sheet.height == 14 * (64 + 2 + 14)


def test_the_concept_of_a_shipped_base_finds_it_again(tmp_path: Path) -> None:
    delta = ConceptDelta(
        weights={"mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight": torch.zeros(2, 3)},
        phrases=("a cactus",),
        base_model="assets:text_to_image_emoji",
    )
    opened = open_concept(write_concept(delta, tmp_path / "cactus.safetensors"))
    assert opened is not None
    assert opened.data["model"]["base_model"] == "assets:text_to_image_emoji"
