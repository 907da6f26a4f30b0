"""Pipelines of diffusers: features of texts as they make them (own cleaning, instructions and lengths), whole
ones, and models without weights.

For bases with a transformer, whose text encoders are T5, Gemma and others; of Stable Diffusion see `prompts`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.errors import MissingDependencyError, NonFiniteError, UsageError, WeightsError
from genzoo.core.reading import read_json
from genzoo.pretrained.hub import located
from genzoo.pretrained.pipeline_step import tokenizers_of
from genzoo.pretrained.prompts import add_tokens
from genzoo.pretrained.quiet import without_pipeline_bars

# pipelines, and where in what `encode_prompt` gives the mask of the text's own tokens is; None: there is none
MASK_AT: dict[str, int | None] = {
    "AllegroPipeline": 1,
    "HunyuanDiTPipeline": 2,
    "LTXPipeline": 1,
    "LattePipeline": None,
    "LuminaPipeline": 1,
    "LuminaText2ImgPipeline": 1,
    "PixArtAlphaPipeline": 1,
    "PixArtSigmaPipeline": 1,
    "SanaPipeline": 1,
    "WanPipeline": None,
}
# those that change a text before they read it, cleaned or not
PREPARE_TEXTS = (
    *("AllegroPipeline", "LattePipeline", "LuminaPipeline", "LuminaText2ImgPipeline"),
    *("PixArtAlphaPipeline", "PixArtSigmaPipeline", "SanaPipeline"),
)
# what the pipeline's own call passes on to `encode_prompt`
_OPTIONS = ("clean_caption", "max_sequence_length", "complex_human_instruction", "mask_feature")
_NAMED = ("tokenizer", "text_encoder")


@dataclass(frozen=True)
class EncodedText:
    """rows: (l, d) float32 of a text's own tokens, padding left out.   ends: whether the last of them is an
    end token.   length: how many tokens the encoder could have read, 0 where it is not known.   ids: (l,) of
    the tokens; where an instruction stands before the text, the first is one of it.
    """

    rows: Tensor
    ends: bool
    length: int
    ids: tuple[int, ...]


class PipelineText:
    """The text encoders of a folder in diffusers' layout, without anything that paints; on the CPU."""

    def __init__(self, base: str | Path) -> None:
        self.base = str(base)
        folder = Path(located(base)).expanduser()
        index = read_json(folder / "model_index.json", error=WeightsError)
        self.kind = str(index.get("_class_name") if isinstance(index, dict) else None)
        if self.kind not in MASK_AT:
            raise UsageError(
                f"nothing is known about how {self.kind} reads text",
                where=str(folder),
                fix=f"a base of Stable Diffusion 1.x, 2.x or XL, or of {', '.join(MASK_AT)}",
            )
        self._pipeline = _loaded(
            folder, self.kind, [name for name, value in index.items() if isinstance(value, list)]
        )
        self._pairs = tokenizers_of(self._pipeline)
        self._options = _options(self._pipeline)
        self._known: dict[str, list[EncodedText]] = {}

    @property
    def widths(self) -> list[int]:
        """Of each encoder's token embeddings."""
        return [model.get_input_embeddings().weight.shape[1] for _, model in self._pairs]

    def add_tokens(self, tokens: Mapping[str, Sequence[Tensor]]) -> None:
        """New words with one embedding row for each encoder. Texts are no longer cleaned then: that would
        take words in <...> for HTML. Raises UsageError if a word exists already.
        """
        for index, (tokenizer, model) in enumerate(self._pairs):
            add_tokens(tokenizer, model, {token: rows[index] for token, rows in tokens.items()})
        if tokens and "clean_caption" in self._options:
            self._options["clean_caption"] = False
        self._known.clear()

    def token_ids(self, word: str) -> list[tuple[int, ...]]:
        """What a word becomes for each tokenizer, without what begins and ends a text."""
        return [tuple(one(word, add_special_tokens=False).input_ids) for one, _ in self._pairs]

    @torch.no_grad()
    def read(self, text: str) -> list[EncodedText]:
        """One for each sequence of rows that the model reads: two of HunyuanDiT, one of others."""
        if text not in self._known:
            indices = [0, 1] if self.kind == "HunyuanDiTPipeline" else [None]
            self._known[text] = [self._sequence(text, index) for index in indices]
        return self._known[text]

    def _sequence(self, text: str, index: int | None) -> EncodedText:
        pipeline, (tokenizer, encoder) = self._pipeline, self._pairs[index or 0]
        given: dict[str, Any] = {} if index is None else {"text_encoder_index": index}
        with _watched(encoder) as seen:
            found = pipeline.encode_prompt(text, **self._options, **given)
        mask_at = MASK_AT[self.kind]
        hidden = found[0][0].float()
        own = hidden
        if mask_at is not None:
            own = hidden[found[mask_at][0].bool()]
        elif self.kind == "WanPipeline":
            # its padding is zeros behind the text
            own = hidden[: int(hidden.abs().amax(1).nonzero().max()) + 1]
        if not bool(torch.isfinite(own).all()):
            raise NonFiniteError(f"the text encoder gives NaN or infinite numbers for {text!r}")
        ids = tokenizer(text).input_ids
        ends = bool(ids) and ids[-1] in (tokenizer.eos_token_id, tokenizer.sep_token_id)
        read = _without_padding(seen[0], tokenizer.pad_token_id, len(own))
        return EncodedText(own, ends, 0 if mask_at is None else len(hidden), read[-len(own) :])


def reads(pipeline: Any, word: str) -> bool:
    """Whether a pipeline leaves a word as it is before it is read: some make capitals small letters."""
    if type(pipeline).__name__ not in PREPARE_TEXTS:
        return True
    return word in pipeline._text_preprocessing(word, clean_caption=False)[0]


@contextmanager
def _watched(encoder: nn.Module) -> Iterator[list[Tensor]]:
    """Collects the ids (b, l) that a text encoder is given."""
    seen: list[Tensor] = []

    def note(_: nn.Module, given: tuple[Any, ...], options: Mapping[str, Any]) -> None:
        seen.append(given[0] if given else options["input_ids"])

    handle = encoder.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def _without_padding(ids: Tensor, padding: int | None, at_least: int) -> tuple[int, ...]:
    """Of the first text; at_least: as many ids are kept, where a text's end is what pads others."""
    row = ids[0].tolist()
    while len(row) > at_least and row[-1] == padding:
        row.pop()
    return tuple(row)


def _loaded(folder: Path, kind: str, names: list[str]) -> Any:
    """The pipeline with its tokenizers and text encoders alone."""
    import diffusers

    others = {name: None for name in names if not name.startswith(_NAMED)}
    try:
        with without_pipeline_bars():
            return getattr(diffusers, kind).from_pretrained(
                str(folder), **others, local_files_only=True, use_safetensors=True
            )
    except ImportError as error:
        raise MissingDependencyError(
            f"{kind} needs a package that is not here", why=str(error).strip().partition("\n")[0][:200]
        ) from error
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise WeightsError(
            "cannot read the base's text encoders",
            where=str(folder),
            why=str(error).strip().partition("\n")[0][:200],
            fix="use a folder in diffusers' layout with safetensors weights",
        ) from error


def load_pipeline(folder: Path) -> Any:
    """A whole pipeline, as its folder names it; safetensors only. Raises WeightsError."""
    import diffusers

    try:
        with without_pipeline_bars():
            pipeline: Any = diffusers.DiffusionPipeline.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True
            )
    except (OSError, ValueError, RuntimeError, AttributeError) as error:
        raise WeightsError(
            "diffusers cannot read the base",
            where=str(folder),
            why=str(error).strip().partition("\n")[0][:200],
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def empty_model(kind: str, config: Mapping[str, Any]) -> nn.Module:
    """A model of diffusers on the meta device."""
    import diffusers

    with torch.device("meta"):
        model: nn.Module = getattr(diffusers, kind).from_config(dict(config))
    return model


def _options(pipeline: Any) -> dict[str, Any]:
    """What the pipeline's own call would say to its `encode_prompt`, without guidance."""
    call = inspect.signature(type(pipeline).__call__).parameters
    takes = inspect.signature(pipeline.encode_prompt).parameters
    options = {name: call[name].default for name in _OPTIONS if name in call and name in takes}
    if "do_classifier_free_guidance" in takes:
        options["do_classifier_free_guidance"] = False
    return {**options, "device": torch.device("cpu")}
