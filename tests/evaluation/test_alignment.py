"""Text, image and subject alignment."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genzoo.core.errors import DataError, UsageError
from genzoo.evaluation.evaluate_concepts import evaluate_concepts, without_modifiers
from genzoo.evaluation.features import FeatureNetwork, from_callable
from genzoo.evaluation.measures.alignment import image_alignment, text_alignment


def test_text_alignment_is_the_scaled_cosine_of_matching_rows() -> None:
    images = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    texts = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, -1.0]])
    # cosines 1, 0, and -1 which counts as 0
    assert text_alignment(images, texts) == pytest.approx(2.5 / 3)
    assert text_alignment(images, texts, scale=1.0) == pytest.approx(1 / 3)


def test_image_alignment_averages_all_pairs() -> None:
    images = torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    targets = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, -1.0]])
    assert image_alignment(images, targets) == pytest.approx((1 + 1 + 0 + 0 + 0 - 1) / 6)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("photo of a <new1> cat", "photo of a cat"),
        ("<new1> cat and <new2> chair", "cat and chair"),
        ("a cat", "a cat"),
    ],
)
def test_modifier_tokens_are_left_out_of_the_text(prompt: str, expected: str) -> None:
    assert without_modifiers(prompt) == expected


def folder(root: Path, colours: list[tuple[int, int, int]]) -> Path:
    root.mkdir(parents=True)
    for index, colour in enumerate(colours):
        Image.fromarray(np.full((4 + index, 6, 3), colour, np.uint8)).save(root / f"{index}.png")
    return root


def colour_network(name: str) -> FeatureNetwork:
    """Features are the mean colour; texts name a colour."""
    words = {"red": [1.0, 0, 0], "green": [0, 1.0, 0]}

    def prepare(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.asarray(image, np.float32)).mean((0, 1)) / 255

    def encode(prompts: list[str]) -> torch.Tensor:
        return torch.tensor([words[prompt.split()[-1]] for prompt in prompts])

    extras = {"encode_text": encode}
    return FeatureNetwork(name, lambda x: {"pool": x}, ("pool",), "mean", name, prepare, extras=extras)


RED, GREEN = (255, 0, 0), (0, 255, 0)


@pytest.fixture
def concept(tmp_path: Path) -> tuple[Path, Path, Path]:
    samples = folder(tmp_path / "samples", [RED, GREEN])
    (tmp_path / "prompts.json").write_text(json.dumps({"0": "a <new1> red", "1": "a <new1> red"}))
    return samples, folder(tmp_path / "red", [RED, RED, RED]), folder(tmp_path / "green", [GREEN])


def test_one_concept(concept) -> None:
    samples, red, _ = concept
    networks = {"clip": colour_network("clip"), "dino": colour_network("dino")}
    result = evaluate_concepts(samples, protocol="customconcept101", reference=red, num=2, networks=networks)
    assert result.metrics == pytest.approx({"clip_text": 1.25, "clip_image": 0.5, "dino_image": 0.5})
    assert "2 images instead of 100" in result.differences
    assert "feature network clip instead of clip-vit-b32" in result.differences


def test_several_concepts_are_taken_one_by_one_and_averaged(concept) -> None:
    samples, red, green = concept
    networks = {"clip": colour_network("clip"), "dino": colour_network("dino")}
    Image.new("RGB", (6, 4), RED).save(samples / "1.png")
    options = {"protocol": "customconcept101", "num": 2, "networks": networks}
    result = evaluate_concepts(samples, reference=[red, green], **options)
    # red samples: 1 against three red photos, 0 against one green; all pairs at once would give 3/4
    assert result.metrics["clip_image"] == pytest.approx(0.5)
    assert result.reference["name"] == "red+green"


def test_what_is_missing_is_said(concept) -> None:
    samples, red, _ = concept
    networks = {"clip": colour_network("clip"), "dino": colour_network("dino")}
    (samples.parent / "prompts.json").write_text(json.dumps({"0": "a red"}))
    with pytest.raises(DataError, match="1 images have no prompt"):
        evaluate_concepts(samples, protocol="customconcept101", reference=red, num=2, networks=networks)
    (samples.parent / "prompts.json").unlink()
    with pytest.raises(DataError, match=r"no prompts.json"):
        evaluate_concepts(samples, protocol="customconcept101", reference=red, num=2, networks=networks)


def test_a_network_without_text_is_refused(concept) -> None:
    samples, red, _ = concept
    mute = from_callable(lambda images: images.float().mean((2, 3)), name="mute")
    with pytest.raises(UsageError, match="mute has no text encoder"):
        evaluate_concepts(
            samples, protocol="customconcept101", reference=red, num=2, networks={"clip": mute, "dino": mute}
        )
