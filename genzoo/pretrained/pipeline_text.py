"""Pipelines of diffusers: features of texts as they make them (own cleaning, instructions and lengths), whole
ones, and models without weights.

For bases with a transformer, whose text encoders are T5, Gemma and others; of Stable Diffusion see `prompts`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.errors import MissingDependencyError, NonFiniteError, UsageError, WeightsError
from genzoo.core.reading import read_json
from genzoo.pretrained.hub import located

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
# what the pipeline's own call passes on to `encode_prompt`
_OPTIONS = ("clean_caption", "max_sequence_length", "complex_human_instruction", "mask_feature")
_NAMED = ("tokenizer", "text_encoder")


@dataclass(frozen=True)
class EncodedText:
    """rows: (l, d) float32 of a text's own tokens, padding left out.   ends: whether the last of them is an
    end token.   length: how many tokens the encoder could have read, 0 where it is not known.
    """

    rows: Tensor
    ends: bool
    length: int = 0


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
        self._known: dict[str, list[EncodedText]] = {}

    @torch.no_grad()
    def read(self, text: str) -> list[EncodedText]:
        """One for each sequence of rows that the model reads: two of HunyuanDiT, one of others."""
        if text not in self._known:
            indices = [0, 1] if self.kind == "HunyuanDiTPipeline" else [None]
            self._known[text] = [self._sequence(text, index) for index in indices]
        return self._known[text]

    def _sequence(self, text: str, index: int | None) -> EncodedText:
        pipeline = self._pipeline
        given: dict[str, Any] = {} if index is None else {"text_encoder_index": index}
        found = pipeline.encode_prompt(text, **_options(pipeline), **given)
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
        tokenizer = pipeline.tokenizer_2 if index else pipeline.tokenizer
        ids = tokenizer(text).input_ids
        ends = bool(ids) and ids[-1] in (tokenizer.eos_token_id, tokenizer.sep_token_id)
        return EncodedText(own, ends, 0 if mask_at is None else len(hidden))


def _loaded(folder: Path, kind: str, names: list[str]) -> Any:
    """The pipeline with its tokenizers and text encoders alone."""
    import diffusers

    others = {name: None for name in names if not name.startswith(_NAMED)}
    try:
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
