"""CLIP: open_clip's models from local weights, and fresh text transformers as diffusers has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genzoo.core.errors import UsageError, WeightsError, did_you_mean
from genzoo.core.optional import require
from genzoo.core.reading import read_json, reason
from genzoo.pretrained.clip_vocabulary import MAX_LENGTH, VOCABULARY_SIZE
from genzoo.pretrained.known_weights import file_sha256
from genzoo.pretrained.loading import load_module

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass
class Clip:
    """An open_clip model. path: of its weights.   tag: changes with the model and its weights."""

    module: Any
    tokenize: Any
    path: Path
    tag: str
    device: str = "cpu"

    @property
    def image_size(self) -> int:
        """The side of the pictures that it looks at."""
        size = self.module.visual.image_size
        return int(size[0] if isinstance(size, tuple) else size)

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        """(b, d) float32 of prepared pictures (b, 3, h, w)."""
        features: Tensor = self.module.encode_image(images.to(self.device)).float()
        return features

    @torch.no_grad()
    def encode_text(self, captions: Sequence[str], *, batch_size: int = 256) -> Tensor:
        """(n, d) float32 on the CPU."""
        rows = []
        for start in range(0, len(captions), batch_size):
            tokens = self.tokenize(list(captions[start : start + batch_size])).to(self.device)
            rows.append(self.module.encode_text(tokens).float().cpu())
        return torch.cat(rows) if rows else torch.zeros(0, 1)

    def encode(self, captions: Sequence[str]) -> Tensor:
        """The same rows, each of length 1: what captions are compared by."""
        features = self.encode_text(captions)
        return features / features.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def load_clip(model: str | Path, *, weights: str | Path | None = None, device: str = "cpu") -> Clip:
    """An open_clip model by name with a file of its weights, or a folder with open_clip_config.json and both.

    Nothing is downloaded. Raises UsageError, WeightsError.
    """
    open_clip = require("open_clip")
    folder = Path(model).expanduser()
    if folder.is_dir():
        module, tokenize = _build(open_clip, _read_config(folder / CONFIG))
        found = [folder / name for name in WEIGHTS if (folder / name).is_file()]
        if weights is None and not found:
            raise WeightsError(f"the folder has no {WEIGHTS[0]}", where=str(folder))
        path = Path(weights) if weights is not None else found[0]
    else:
        if weights is None:
            raise UsageError(
                f"the open_clip model {str(model)!r} needs a file of weights",
                where=_address(open_clip, str(model)),
                fix="name it, or give a folder with open_clip_config.json and weights as the model",
            )
        if str(model) not in open_clip.list_models():
            hint = did_you_mean(str(model), open_clip.list_models())
            raise UsageError(f"open_clip has no model {str(model)!r}", fix=hint or None)
        path = Path(weights).expanduser()
        module = open_clip.create_model(str(model), pretrained=None)
        tokenize = open_clip.get_tokenizer(str(model))
    module = load_module(module, path).to(device)
    return Clip(module, tokenize, path, f"{folder.name}-{file_sha256(path)[:16]}", device)


def _address(open_clip: Any, model: str) -> str | None:
    """Where the first of a model's published weights lies."""
    for tag in open_clip.list_pretrained_tags_by_model(model):
        known = open_clip.get_pretrained_cfg(model, tag)
        if known.get("hf_hub"):
            return f"https://huggingface.co/{known['hf_hub'].strip('/')}"
        if known.get("url"):
            return str(known["url"])
    return None


def _read_config(path: Path) -> dict[str, Any]:
    content = read_json(path, CONFIG, error=WeightsError)
    try:
        found: dict[str, Any] = content["model_cfg"]
    except (KeyError, TypeError) as error:
        raise WeightsError(f"cannot read {CONFIG}", where=str(path), why=reason(error)) from error
    return found


def _build(open_clip: Any, config: dict[str, Any]) -> tuple[Any, Any]:
    own = {key: value for key, value in config.items() if key != "custom_text"}
    text = own.get("text_cfg", {})
    if text.get("hf_model_name") or text.get("hf_tokenizer_name"):
        raise UsageError(
            "open_clip models with a text tower of transformers are not supported here",
            fix="use a plain CLIP such as ViT-L-14 or ViT-B-32",
        )
    kind = open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP
    return kind(**own), open_clip.SimpleTokenizer(context_length=int(text.get("context_length", 77)))


def fresh_text_tower(width: int, layers: int, heads: int) -> Any:
    """A text transformer of transformers with new weights, 77 tokens long."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=MAX_LENGTH,
        projection_dim=width,
        bos_token_id=VOCABULARY_SIZE - 2,
        eos_token_id=VOCABULARY_SIZE - 1,
        pad_token_id=VOCABULARY_SIZE - 1,
    )
    return CLIPTextModel(config)
