"""Words past what the text encoder reads: refused where they are taught, sampled or merged; else told."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from families.custom_diffusion.tiny_bases import make_concept

import genzoo
from genzoo.core.errors import DataError, UsageError
from genzoo.families.custom_diffusion.files.write_layouts import write_concept
from genzoo.families.custom_diffusion.merge.concepts import merge_concepts
from genzoo.families.custom_diffusion.training.model import ConceptModel
from genzoo.families.custom_diffusion.training.task import require_words
from genzoo.pretrained.prompts import load_prompt_encoder
from genzoo.pretrained.text_features import cut_off, reads, tell_of_cut, tokenize
from genzoo.pretrained.text_to_image import load_parts

LONG = "cat " * 90


@pytest.fixture
def model(sd: Path) -> ConceptModel:
    return ConceptModel(load_parts(str(sd)), modifier_tokens=["<new1>"])


def test_what_is_cut_off_is_what_the_ids_lack(model: ConceptModel) -> None:
    tokenizer, longest = model.parts.tokenizers[0], model.parts.max_length
    fitting = "cat " * (longest - 2)
    assert cut_off(tokenizer, fitting, longest) == ""
    assert cut_off(tokenizer, fitting + "dog", longest) == "dog"
    cut = tokenize(tokenizer, [fitting + "dog"], longest)
    assert torch.equal(cut, tokenize(tokenizer, [fitting], longest))


@pytest.mark.parametrize(("before", "read"), [(74, True), (75, False)])
def test_a_word_is_read_up_to_the_last_place(model: ConceptModel, before: int, read: bool) -> None:
    text = "cat " * before + "<new1> cat"
    tokenizer = model.parts.tokenizers[0]
    assert reads(tokenizer, text, "<NEW1>", model.parts.max_length) is read
    word = tokenizer.convert_tokens_to_ids("<new1>")
    assert bool((tokenize(tokenizer, [text], model.parts.max_length) == word).any()) is read


def test_a_first_place_that_is_read_is_enough(model: ConceptModel) -> None:
    require_words(model, ["<new1> cat " + LONG + "<new1>"])


def test_training_refuses_captions_whose_word_is_not_read(model: ConceptModel) -> None:
    with pytest.raises(DataError, match=r"(?s)does not read as far as <new1>.*77 tokens.*shorter prompt"):
        require_words(model, [LONG + "<new1> cat"])


def test_sampling_refuses_prompts_whose_word_is_not_read(sd: Path, tmp_path: Path) -> None:
    concept = make_concept(sd, 1, token="<new1>", phrase="<new1> cat")
    run = genzoo.load_run(write_concept(concept, tmp_path / "cat.safetensors"))
    with pytest.raises(UsageError, match="does not read as far as <new1>"):
        run.sample(prompt=LONG + "<new1> cat", num=1, steps=2, base=str(sd))


def test_merging_refuses_phrases_that_are_not_read(sd: Path) -> None:
    pair = [make_concept(sd, 1, token="<new1>", phrase=LONG + "<new1> cat")]
    pair.append(make_concept(sd, 2, token="<new2>", phrase="<new2> pot"))
    with pytest.raises(UsageError, match=r"(?s)too long to be kept.*reads 77 tokens"):
        merge_concepts(pair, base=sd, captions=["a cat", "a pot on a table"])


@pytest.fixture
def say(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    tell_of_cut.cache_clear()
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records]


def test_other_texts_are_cut_with_a_line_for_each(
    sd: Path, model: ConceptModel, say: Callable[[], list[str]]
) -> None:
    for _ in range(3):
        model.token_ids([LONG + "dog", "a cat"])
    assert len(say()) == 1
    assert say()[0].endswith("dog' is cut off")
    load_prompt_encoder(sd).encode([LONG + "pot"])
    assert say()[1].endswith("pot' is cut off")
