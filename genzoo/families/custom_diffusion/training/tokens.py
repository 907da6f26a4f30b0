"""New words in a text-to-image model's tokenizers, each beginning as a copy of a rare word's embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genzoo.core.errors import UsageError, WeightsError
from genzoo.families.custom_diffusion.training.trainable import ExtendedEmbedding

# the official choice: three rare pieces, given to new words in order
RARE_TOKENS = ("ktn", "pll", "ucd")


def extend_encoders(
    tokenizers: Sequence[Any],
    text_encoders: Sequence[Any],
    tokens: Sequence[str],
    *,
    initializers: Sequence[str | int] = RARE_TOKENS,
    rows: Mapping[str, Sequence[Tensor]] | None = None,
) -> list[ExtendedEmbedding]:
    """Teach every tokenizer the words and give its encoder trainable rows for them, and for nothing else.

    initializers: for each word, a known piece or its id.   rows: embeddings to begin with in their place,
    one per encoder. Raises UsageError.
    """
    if rows is None and len(initializers) < len(tokens):
        raise UsageError(
            f"{len(tokens)} new words but {len(initializers)} initializer_tokens",
            fix="name a rare word for each of them",
        )
    embeddings = []
    for number, (tokenizer, encoder) in enumerate(zip(tokenizers, text_encoders, strict=True)):
        table = encoder.get_input_embeddings().weight
        check_new(tokenizer, tokens)
        if rows is None:
            ids = [piece_id(tokenizer, piece) for piece in initializers[: len(tokens)]]
            first = table.detach()[ids]
        else:
            first = _stacked(rows, tokens, number, table)
        embeddings.append(_extend(tokenizer, encoder, tokens, first))
    return embeddings


def check_new(tokenizer: Any, tokens: Sequence[str]) -> None:
    """Raise UsageError unless every word is a single, printable and unknown one."""
    for token in tokens:
        if not token or any(c.isspace() or not c.isprintable() or c in "/\\" for c in token):
            raise UsageError(f"{token!r} cannot be a new word", fix="a word such as <new1>")
        if len(tokenizer(token, add_special_tokens=False).input_ids) == 1:
            raise UsageError(
                f"the tokenizer knows the word {token!r} already", fix="take another one, such as <new1>"
            )
    lowered = [token.lower() for token in tokens]
    if len(set(lowered)) < len(lowered):
        raise UsageError(f"the new words {', '.join(tokens)} are not different", fix="case does not count")


def piece_id(tokenizer: Any, piece: str | int) -> int:
    """The id of a piece of the vocabulary, such as "ktn" (42170, which only occurs inside words), or an id.

    Raises UsageError when the tokenizer does not know it, or cuts it into several pieces.
    """
    size, unknown = len(tokenizer), tokenizer.unk_token_id
    special = {unknown, tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id}
    if isinstance(piece, int):
        if not 0 <= piece < size or piece in special:
            raise UsageError(f"{piece} is no id of a word", fix=f"ids are 0 to {size - 1}")
        return piece
    found = tokenizer.convert_tokens_to_ids(piece)
    if found is not None and found not in special:
        return int(found)
    ids = tokenizer(piece, add_special_tokens=False).input_ids
    if len(ids) != 1 or ids[0] in special:
        raise UsageError(
            f"the initializer token {piece!r} is {len(ids)} pieces for the tokenizer",
            why=", ".join(map(repr, tokenizer.convert_ids_to_tokens(ids))),
            fix="take a single piece of the vocabulary, such as ktn, pll or ucd, or an id",
        )
    return int(ids[0])


def _extend(tokenizer: Any, encoder: Any, tokens: Sequence[str], rows: Tensor) -> ExtendedEmbedding:
    size, known = len(tokenizer), encoder.get_input_embeddings()
    table = known.weight
    if len(table) < size:
        raise WeightsError(f"the tokenizer has {size} words and the text encoder {len(table)} rows")
    tokenizer.add_tokens(list(tokens))
    # rows beyond the vocabulary are padding, and new ids begin where the vocabulary ends
    embedding = ExtendedEmbedding(table[:size], rows, dict(known.named_buffers()).get("embed_scale"))
    encoder.set_input_embeddings(embedding)
    return embedding


def _stacked(
    rows: Mapping[str, Sequence[Tensor]], tokens: Sequence[str], number: int, table: Tensor
) -> Tensor:
    found = [rows[token][number] for token in tokens]
    wrong = [tuple(row.shape) for row in found if row.shape != table.shape[1:]]
    if wrong:
        raise WeightsError(
            f"a token's embedding is {wrong[0]}, the text encoder {table.shape[1]} wide",
            fix="use the base model that the concept was trained from",
        )
    return torch.stack(found) if found else table.new_zeros(0, table.shape[1])
