"""Prompts past what the text encoder reads at once: read in chunks in training, sampling and merging."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from families.custom_diffusion.tiny_bases import make_concept

import genzoo
from genzoo.core.errors import UsageError
from genzoo.core.seeds import SampleStreams
from genzoo.families.custom_diffusion.files.write_layouts import write_concept
from genzoo.families.custom_diffusion.merge.concepts import merge_concepts
from genzoo.families.custom_diffusion.training.model import ConceptModel
from genzoo.families.custom_diffusion.training.task import ConceptTask, require_words
from genzoo.pretrained.prompts import load_prompt_encoder
from genzoo.pretrained.text_features import tokenize
from genzoo.pretrained.text_to_image import TextToImageParts, load_parts

LONG = "cat " * 90


@pytest.fixture
def parts(sd: Path) -> TextToImageParts:
    return load_parts(str(sd))


@pytest.fixture
def model(parts: TextToImageParts) -> ConceptModel:
    return ConceptModel(parts, modifier_tokens=["<new1>"])


@pytest.mark.parametrize(("words", "chunks"), [(75, 1), (76, 2), (150, 2), (151, 3)])
def test_chunks_hold_75_tokens(model: ConceptModel, words: int, chunks: int) -> None:
    tokenizer = model.parts.tokenizers[0]
    ids = tokenize(tokenizer, ["cat " * words], 77)
    assert ids.shape == (1, 77 * chunks)
    assert int((ids == tokenizer.bos_token_id).sum()) == chunks
    assert int((ids == 2368).sum()) == words


def test_short_prompts_are_read_as_the_tokenizer_pads_them(parts: TextToImageParts) -> None:
    prompts = ["photo of a cat", "", "two red cats, (one) [blue]"]
    theirs = parts.tokenizers[0](prompts, padding="max_length", max_length=77, return_tensors="pt").input_ids
    assert torch.equal(parts.token_ids(prompts)[0], theirs)


def test_each_chunk_is_encoded_apart(parts: TextToImageParts) -> None:
    text = "cat " * 75 + "dog"
    whole = parts.encode_prompts([text]).hidden
    first, second = parts.encode_prompts(["cat " * 75]).hidden, parts.encode_prompts(["dog"]).hidden
    torch.testing.assert_close(whole, torch.cat([first, second], 1), atol=1e-6, rtol=1e-5)


def test_sdxl_takes_the_pooled_text_of_the_first_chunk(sdxl: Path) -> None:
    parts = load_parts(str(sdxl))
    whole, first = parts.encode_prompts(["cat " * 80, "a cat"]), parts.encode_prompts(["cat " * 75])
    assert whole.hidden.shape == (2, 154, 64)
    assert whole.pooled is not None
    assert first.pooled is not None
    torch.testing.assert_close(whole.pooled[:1], first.pooled, atol=1e-6, rtol=1e-5)


def test_weights_move_words_away_from_the_empty_prompt(parts: TextToImageParts) -> None:
    plain, heavy = parts.encode_prompts(["a red cat", "a (red:1.5) cat"]).hidden
    empty = parts.encode_prompts([""]).hidden[0]
    torch.testing.assert_close(heavy[2], empty[2] + 1.5 * (plain[2] - empty[2]))
    others = [index for index in range(77) if index != 2]
    assert torch.equal(heavy[others], plain[others])
    literal = parts.encode_captions(["a (red:1.5) cat"]).hidden[0]
    assert not torch.allclose(literal[2], heavy[2], atol=1e-3)


def test_a_sample_does_not_depend_on_the_length_of_its_neighbours_prompt(sd: Path, tmp_path: Path) -> None:
    concept = make_concept(sd, 1, token="<new1>", phrase="<new1> cat")
    run = genzoo.load_run(write_concept(concept, tmp_path / "cat.safetensors"))
    options = {"steps": 2, "base": str(sd)}
    short, long = "a <new1> cat", LONG + "<new1> cat"
    both = run.sample(prompt=[short, long], num=2, negative_prompt="dog " * 80, **options).pixels
    alone = run.sample(prompt=[short, short], num=2, negative_prompt="dog " * 80, **options).pixels
    # two pictures at once round differently from one
    torch.testing.assert_close(both[0], alone[0], atol=1e-5, rtol=0)
    assert not torch.allclose(both[1], alone[1], atol=1e-3)


def test_training_reads_captions_to_their_end(model: ConceptModel) -> None:
    require_words(model, [LONG + "<new1> cat"])
    task = ConceptTask(model)
    ids = model.token_ids([LONG + "<new1> cat", "<new1> cat"])
    assert ids.shape == (2, 1, 154)
    batch = {
        "pixels": torch.zeros(1, 3, 16, 16),
        "key": ["a"],
        "captions": ["photo of a <new1> cat"],
        "class_pixels": torch.zeros(1, 3, 16, 16),
        "class_key": ["b"],
        "class_captions": [LONG],
        "box": torch.full((1, 4), -1),
    }
    prepared = task.prepare_batch(batch, SampleStreams.from_seeds(0, positions=range(1)))
    assert prepared["ids"].shape == (1, 1, 154)
    assert prepared["hidden"].shape == (1, 154, 24)
    task.loss(model, prepared).loss.backward()
    (embedding,) = model.embeddings
    assert float(embedding.rows.grad.abs().max()) > 0


def test_merging_holds_the_words_of_every_chunk(sd: Path) -> None:
    long = make_concept(sd, 1, token="<new1>", phrase=LONG + "<new1> cat")
    merged = merge_concepts([long], base=sd, captions=["a cat", "a pot on a table"])
    encoder = load_prompt_encoder(sd)
    encoder.add_tokens(long.tokens)
    first, second = encoder.encode([LONG + "<new1> cat"])
    assert (first.text, second.text) == (LONG + "<new1> cat", "")
    assert (len(first.ids), len(second.ids)) == (77, 19)
    assert merged.report.num_target_rows > 24 or merged.report.constraint_residual < 1e-3
    assert dataclasses.asdict(merged.report)["concepts"][0]["num_rows"] > 90


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a [cat:dog:0.5]", "is a schedule"),
        ("a [cat|dog]", "is a schedule"),
        ("a cat AND a dog", "is the composition"),
        ("a (cat:1.2.3)", "'1.2.3' is no weight"),
    ],
)
def test_what_other_programs_mean_by_brackets_is_refused(
    parts: TextToImageParts, prompt: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        parts.encode_prompts([prompt])
    parts.encode_captions([prompt])
