"""Text encoders of a text-to-image folder: features of prompts, row by row, with words added to it.

CLIP's text transformers are causal, so prompts run unpadded: the rows equal those of a padded run, and
prompts that begin alike share their first rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genzoo.core.errors import UsageError, WeightsError
from genzoo.core.reading import read_json
from genzoo.core.shapes_alone import shapes
from genzoo.pretrained.hub import SMALL, WHOLE, fetched, is_hub_id, located, resolve, weights_lack
from genzoo.pretrained.prompt_text import chunks_of
from genzoo.pretrained.quiet import without_bars
from genzoo.pretrained.text_features import encode_ids


@dataclass(frozen=True)
class PromptFeatures:
    """ids: token ids from BOS to EOS.   rows: (l, d) float32, one per token.   source: the prompt, of which
    this is all or a chunk; text: the same, and empty for chunks after the first.
    """

    text: str
    ids: tuple[int, ...]
    rows: Tensor
    source: str = ""


class PromptEncoder:
    """One text encoder, or the two of SDXL whose features are concatenated."""

    def __init__(self, tokenizers: Sequence[Any], models: Sequence[Any]) -> None:
        self.tokenizers, self.models = list(tokenizers), list(models)
        for model in self.models:
            model.eval().requires_grad_(False)

    @property
    def widths(self) -> list[int]:
        """Of each encoder's token embeddings."""
        return [model.get_input_embeddings().weight.shape[1] for model in self.models]

    def add_tokens(self, tokens: Mapping[str, Sequence[Tensor]]) -> None:
        """New words with one embedding row for each encoder. Raises UsageError if a word exists already."""
        for index, (tokenizer, model) in enumerate(zip(self.tokenizers, self.models, strict=True)):
            add_tokens(tokenizer, model, {token: rows[index] for token, rows in tokens.items()})

    def token_ids(self, token: str) -> list[int]:
        """What a word becomes, without BOS and EOS."""
        return list(self.tokenizers[0](token, add_special_tokens=False).input_ids)

    @property
    def max_length(self) -> int:
        """Tokens that are read of a text, its beginning and end included."""
        return min(_longest(model) for model in self.models)

    def num_chunks(self, text: str) -> int:
        """How many times the encoders have to read to reach a text's end."""
        return len(self._ids(text))

    def encode(self, prompts: Sequence[str], *, batch_size: int = 32) -> list[PromptFeatures]:
        """Features of every prompt, in order; of one that is longer than the encoders read, one for each of
        its chunks, as `prompt_text` cuts them.
        """
        pieces = self._pieces(prompts)
        by_length: dict[int, list[int]] = {}
        for index, (_, _, row) in enumerate(pieces):
            by_length.setdefault(len(row), []).append(index)
        found: dict[int, Tensor] = {}
        for indices in by_length.values():
            for start in range(0, len(indices), batch_size):
                chunk = indices[start : start + batch_size]
                rows = self._forward([torch.tensor([pieces[i][2] for i in chunk])] * len(self.models))
                found.update(zip(chunk, rows, strict=True))
        return [
            PromptFeatures("" if number else prompt, ids, found[index], prompt)
            for index, (prompt, number, ids) in enumerate(pieces)
        ]

    def padding_rows(self, prompts: Sequence[str], *, batch_size: int = 32) -> Tensor:
        """Rows (n, d) float32 of the padding after each prompt's chunks, as a pipeline appends it."""
        pieces = [ids for _, _, ids in self._pieces(prompts)]
        found = []
        for start in range(0, len(pieces), batch_size):
            chunk = pieces[start : start + batch_size]
            pairs = zip(self.tokenizers, self.models, strict=True)
            ids = [_padded(chunk, tokenizer.pad_token_id, _longest(model)) for tokenizer, model in pairs]
            rows = self._forward(ids)
            found += [row[len(piece) :] for row, piece in zip(rows, chunk, strict=True)]
        return torch.cat(found)

    def _pieces(self, prompts: Sequence[str]) -> list[tuple[str, int, tuple[int, ...]]]:
        """Each chunk of each prompt: the prompt, the chunk's number and its ids from BOS to EOS."""
        return [(prompt, number, ids) for prompt in prompts for number, ids in enumerate(self._ids(prompt))]

    def _ids(self, prompt: str) -> list[tuple[int, ...]]:
        found = []
        for tokenizer in self.tokenizers:
            chunks = chunks_of(tokenizer, prompt, self.max_length)
            first, last = tokenizer.bos_token_id, tokenizer.eos_token_id
            found.append([(first, *(token for token, _ in chunk), last) for chunk in chunks])
        if any(one != found[0] for one in found):
            raise WeightsError(
                f"the two tokenizers read {prompt!r} differently, so their features do not align"
            )
        return found[0]

    @torch.no_grad()
    def _forward(self, ids: Sequence[Tensor]) -> Tensor:
        """(b, l) each -> (b, l, d) float32: the last layer with its norm, or SDXL's two before the last."""
        return encode_ids(self.models, ids).hidden.float()


def add_tokens(tokenizer: Any, model: Any, tokens: Mapping[str, Tensor]) -> None:
    """Add words to one tokenizer and write their rows into its model's embedding, which grows."""
    present = [token for token in tokens if len(tokenizer(token, add_special_tokens=False).input_ids) == 1]
    if present:
        raise UsageError(
            f"the tokenizer knows the word {present[0]!r} already",
            fix="rename the concept's token, such as to <new2>",
        )
    if not tokens:
        return
    width = model.get_input_embeddings().weight.shape[1]
    wrong = {token: tuple(row.shape) for token, row in tokens.items() if tuple(row.shape) != (width,)}
    if wrong:
        raise WeightsError(
            f"the text encoder is {width} wide; the concept's token {next(iter(wrong))} has another shape",
            why=str(wrong),
            fix="use the base model that the concept was trained from",
        )
    tokenizer.add_tokens(list(tokens))
    old = model.get_input_embeddings().weight
    # the new rows would be sampled from the old ones' statistics: plain growth, then every row is written
    model.resize_token_embeddings(max(len(tokenizer), len(old)), mean_resizing=False)
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        for token, row in tokens.items():
            table[tokenizer.convert_tokens_to_ids(token)] = row.to(table)


def load_prompt_encoder(base: str | Path) -> PromptEncoder:
    """The tokenizers and text encoders of a folder or hub id in diffusers' layout, in float32 on the CPU."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    base = located(base)
    _require_clip(base)
    suffixes = ["", "_2"] if _has_second(base) else [""]
    tokenizers, models = [], []
    for suffix in suffixes:
        advice: dict[str, Any] = {"together": WHOLE, "instead": SMALL}
        lacking = weights_lack(base, "model.safetensors", subfolder=f"text_encoder{suffix}")
        files, words = ("config.json", "model.safetensors"), ("tokenizer_config.json",)
        encoder = fetched(base, files[:1] if lacking else files, subfolder=f"text_encoder{suffix}", **advice)
        more = ("tokenizer.json", "vocab.json", "merges.txt", "special_tokens_map.json")
        tokens = fetched(base, words, optional=more, subfolder=f"tokenizer{suffix}", **advice)
        cls = CLIPTextModelWithProjection if suffix else CLIPTextModel
        try:
            tokenizers.append(
                CLIPTokenizer.from_pretrained(tokens, subfolder=f"tokenizer{suffix}", local_files_only=True)
            )
            if lacking:
                models.append(_of_shapes(cls, encoder, f"text_encoder{suffix}"))
                continue
            with without_bars():
                model = cls.from_pretrained(
                    encoder,
                    subfolder=f"text_encoder{suffix}",
                    dtype=torch.float32,
                    use_safetensors=True,
                    local_files_only=True,
                )
            models.append(model)
        except (OSError, ValueError, RuntimeError) as error:
            raise WeightsError(
                f"cannot read tokenizer{suffix} or text_encoder{suffix}",
                where=str(base),
                why=str(error).strip().partition("\n")[0][:200],
                fix="use a folder in diffusers' layout with safetensors weights",
            ) from error
    return PromptEncoder(tokenizers, models)


def _require_clip(base: str | Path) -> None:
    """Raise UsageError for a folder whose index names a text encoder of another kind."""
    path = Path(base) / "model_index.json"
    index = read_json(path, error=WeightsError) if path.is_file() else None
    named = index.get("text_encoder") if isinstance(index, dict) else None
    kind = str(named[-1]) if isinstance(named, list) and named else "CLIPTextModel"
    if not kind.startswith("CLIP"):
        raise UsageError(
            f"the base's text encoder is a {kind}",
            where=str(base),
            why="of bases with a UNet those are read whose text encoders are CLIP's",
            fix="Stable Diffusion 1.x, 2.x or XL",
        )


def _of_shapes(cls: Any, place: str, subfolder: str) -> Any:
    config = cls.config_class.from_pretrained(place, subfolder=subfolder, local_files_only=True)
    with shapes():
        return cls(config)


def _has_second(base: str | Path) -> bool:
    if Path(base).is_dir():
        return (Path(base) / "text_encoder_2").is_dir()
    if not is_hub_id(base):
        return False
    return "text_encoder_2" in read_json(
        resolve(base, "model_index.json", together=WHOLE, instead=SMALL), error=WeightsError
    )


def _longest(model: Any) -> int:
    return int(model.config.max_position_embeddings)


def _padded(rows: Sequence[tuple[int, ...]], padding: int, length: int) -> Tensor:
    return torch.tensor([[*row, *[padding] * (length - len(row))] for row in rows])
