"""New words: what they begin with, which are refused, and that nothing else of the base can move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from genzoo.core.errors import DataError, UsageError
from genzoo.families.custom_diffusion.training.model import ConceptModel, custom_diffusion
from genzoo.families.custom_diffusion.training.task import ConceptTask, require_words
from genzoo.families.custom_diffusion.training.tokens import check_new, piece_id
from genzoo.pretrained.prompts import load_prompt_encoder
from genzoo.pretrained.text_to_image import load_parts


@pytest.fixture(scope="module")
def tokenizer(sd: Path) -> Any:
    return load_prompt_encoder(sd).tokenizers[0]


@pytest.mark.parametrize(
    ("piece", "expected"),
    [("ktn", 42170), ("pll", 47629), ("ucd", 44746), ("sks", 48136), ("pll</w>", 25266), (43514, 43514)],
)
def test_rare_pieces_have_the_official_ids(tokenizer: Any, piece: str | int, expected: int) -> None:
    assert piece_id(tokenizer, piece) == expected


@pytest.mark.parametrize(
    ("piece", "message"),
    [
        ("wooden teddy", "is 2 pieces"),
        ("zzxxqqvv", "pieces for the tokenizer"),
        ("<|endoftext|>", "initializer token"),
        (49407, "is no id of a word"),
        (60000, "is no id of a word"),
    ],
)
def test_unknown_and_multi_piece_initialisers_are_refused(
    tokenizer: Any, piece: str | int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        piece_id(tokenizer, piece)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["cat"], "knows the word 'cat' already"),
        (["<new 1>"], "cannot be a new word"),
        ([""], "cannot be a new word"),
        (["<new1>", "<NEW1>"], "are not different"),
    ],
)
def test_words_that_exist_or_cannot_be_words_are_refused(
    tokenizer: Any, tokens: list[str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        check_new(tokenizer, tokens)


def test_each_new_word_needs_an_initialiser_and_a_phrase(sd: Path) -> None:
    with pytest.raises(UsageError, match="2 new words but 1 initializer_tokens"):
        custom_diffusion(str(sd), modifier_tokens=["<new1>", "<new2>"], initializer_tokens=["ktn"])
    with pytest.raises(UsageError, match="no phrase has the new word <new2>"):
        ConceptModel(load_parts(sd), modifier_tokens=["<new2>"], phrases=["<new1> cat"])
    with pytest.raises(UsageError, match="neither a new word nor a phrase"):
        ConceptModel(load_parts(sd))


def test_a_step_gives_gradients_to_the_chosen_weights_only_and_none_through_the_first_token(
    sdxl: Path,
) -> None:
    parts = load_parts(sdxl)
    model = ConceptModel(parts, modifier_tokens=["<new1>"], phrases=["<new1> cat"])
    ids = model.token_ids(["photo of a <new1> cat"])
    assert ids.shape == (1, 2, 77)
    generator = torch.Generator().manual_seed(0)
    x_t = torch.randn(1, 4, 8, 8, generator=generator)
    model(x_t, torch.tensor([300]), ids).square().mean().backward()
    moved = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.any()}
    assert moved == {name for name, value in model.named_parameters() if value.requires_grad}
    assert len([name for name in moved if name.endswith("rows")]) == 2
    # only the first token: no key, value or word can move
    for parameter in model.parameters():
        parameter.grad = None
    features = parts.encode_prompts(["photo of a <new1> cat"])
    hidden = features.hidden[:, :1].detach().requires_grad_()
    model(x_t, torch.tensor([300]), hidden=hidden, pooled=features.pooled.detach()).square().mean().backward()
    assert not hidden.grad.any()
    assert not any(value.grad is not None and value.grad.any() for value in model.parameters())


def test_prompts_of_pictures_need_a_word_to_teach(sd: Path) -> None:
    model = ConceptModel(load_parts(sd), modifier_tokens=["<new1>"], phrases=["<new1> cat", "moongate"])
    require_words(model, ["a far away photo of a <new1> cat", "a moongate in the garden"])
    with pytest.raises(DataError, match="'photo of a cat' has none of the words to teach"):
        require_words(model, ["photo of a cat"])
    with pytest.raises(UsageError, match="brings its own autoencoder"):
        ConceptTask(model, codec=object())  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is not known"):
        ConceptTask(model, prior="mask")
