"""Features of prompts, as the text encoders of Stable Diffusion 1.x, 2.x and XL give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genzoo.pretrained.prompt_text import Token, chunks_of


@dataclass(frozen=True)
class TextFeatures:
    """hidden: (b, l, d), what cross-attention looks at.   pooled: (b, p), SDXL only."""

    hidden: Tensor
    pooled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.hidden)

    def zeros_like(self) -> TextFeatures:
        """All zeros, SDXL's features of a prompt that was left out."""
        pooled = None if self.pooled is None else torch.zeros_like(self.pooled)
        return TextFeatures(torch.zeros_like(self.hidden), pooled)

    def expand(self, num: int) -> TextFeatures:
        """One row for each of `num` samples, from one row or as many."""
        pooled = None if self.pooled is None else self.pooled.expand(num, -1)
        return TextFeatures(self.hidden.expand(num, -1, -1), pooled)

    def padded(self, length: int, empty: Tensor) -> TextFeatures:
        """With chunks of the empty prompt, (1, l, d), behind the others up to `length` rows."""
        missing = (length - self.hidden.shape[1]) // empty.shape[1]
        if not missing:
            return self
        more = empty.to(self.hidden).expand(len(self), -1, -1).repeat(1, missing, 1)
        return TextFeatures(torch.cat([self.hidden, more], 1), self.pooled)

    def to(self, like: Tensor) -> TextFeatures:
        """On the device and in the dtype of a tensor."""
        return TextFeatures(self.hidden.to(like), None if self.pooled is None else self.pooled.to(like))


def concatenate(parts: Sequence[TextFeatures]) -> TextFeatures:
    """Rows of several features, one below the other."""
    pooled = [part.pooled for part in parts if part.pooled is not None]
    return TextFeatures(torch.cat([part.hidden for part in parts]), torch.cat(pooled) if pooled else None)


def tokenize(tokenizer: Any, prompts: Sequence[str], max_length: int, *, chunks: int = 1) -> Tensor:
    """Ids (b, k max_length) of texts as they stand: k chunks of max_length - 2 tokens between beginning and
    end, as many as the longest text needs and `chunks` at least; what is missing is padding.
    """
    return tokenize_weighted(tokenizer, prompts, max_length, chunks=chunks, weighted=False)[0]


def tokenize_weighted(
    tokenizer: Any, prompts: Sequence[str], max_length: int, *, chunks: int = 1, weighted: bool = True
) -> tuple[Tensor, Tensor]:
    """The same with the syntax of `prompt_text`, and a weight for each id, (b, k max_length)."""
    found = [chunks_of(tokenizer, prompt, max_length, weighted=weighted) for prompt in prompts]
    count = max([chunks, *map(len, found)])
    rows = [_assembled(tokenizer, one + [[]] * (count - len(one)), max_length) for one in found]
    ids = torch.tensor([[token for token, _ in row] for row in rows], dtype=torch.long)
    return ids.reshape(len(prompts), -1), torch.tensor([[weight for _, weight in row] for row in rows])


def num_chunks(tokenizer: Any, text: str, max_length: int, *, weighted: bool = False) -> int:
    """How many chunks a text takes."""
    return len(chunks_of(tokenizer, text, max_length, weighted=weighted))


def _assembled(tokenizer: Any, chunks: Sequence[Sequence[Token]], max_length: int) -> list[Token]:
    row: list[Token] = []
    for chunk in chunks:
        row += [(tokenizer.bos_token_id, 1.0), *chunk, (tokenizer.eos_token_id, 1.0)]
        row += [(tokenizer.pad_token_id, 1.0)] * (-len(row) % max_length)
    return row


def weighted_features(hidden: Tensor, weights: Tensor, empty: Tensor) -> Tensor:
    """z_0 + w (z - z_0): features z (b, l, d) moved away from those of the empty prompt z_0 (1, l, d) at the
    same place, or towards them; exactly z where w is 1 (ComfyUI's rule, which divides by nothing).
    """
    w = weights.to(hidden)[:, :, None]
    return torch.where(w == 1, hidden, empty + w * (hidden - empty))


def encode_ids(text_encoders: Sequence[Any], ids: Sequence[Tensor]) -> TextFeatures:
    """One encoder's last layer after its norm; of two, the layers before the last side by side, and the
    second one's projected end of text.   ids: (b, l) each; of texts that are longer than the encoders read,
    (b, k l): each chunk is encoded apart, and the projected end is the first one's.
    """
    longest = int(text_encoders[0].config.max_position_embeddings)
    if ids[0].shape[1] > longest:
        count = ids[0].shape[1] // longest
        parts = encode_ids(text_encoders, [rows.reshape(-1, longest) for rows in ids])
        hidden = parts.hidden.reshape(len(ids[0]), count * longest, -1)
        return TextFeatures(hidden, None if parts.pooled is None else parts.pooled[::count])
    device = next(text_encoders[0].parameters()).device
    if len(text_encoders) == 1:
        return TextFeatures(text_encoders[0](input_ids=ids[0].to(device)).last_hidden_state)
    outputs = [
        encoder(input_ids=rows.to(device), output_hidden_states=True)
        for encoder, rows in zip(text_encoders, ids, strict=True)
    ]
    hidden = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
    return TextFeatures(hidden, outputs[-1].text_embeds)
