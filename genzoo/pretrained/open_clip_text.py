"""Text features of an open_clip model from local weights, to compare captions with each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genzoo.core.errors import UsageError, WeightsError, did_you_mean
from genzoo.core.optional import require
from genzoo.pretrained.known_weights import file_sha256
from genzoo.pretrained.loading import check_against, load_state, spec_of

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


class CaptionEncoder:
    """Unit rows of captions. tag: changes with the model and its weights."""

    def __init__(self, module: Any, tokenize: Any, tag: str, device: str = "cpu") -> None:
        self.module, self.tokenize, self.tag, self.device = module.to(device).eval(), tokenize, tag, device

    @torch.no_grad()
    def encode(self, captions: Sequence[str], *, batch_size: int = 256) -> Tensor:
        """(n, d) float32 on the CPU, each row of length 1."""
        rows = []
        for start in range(0, len(captions), batch_size):
            tokens = self.tokenize(list(captions[start : start + batch_size])).to(self.device)
            rows.append(self.module.encode_text(tokens).float().cpu())
        features = torch.cat(rows) if rows else torch.zeros(0, 1)
        return features / features.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def load_caption_encoder(
    model: str | Path, *, weights: str | Path | None = None, device: str = "cpu"
) -> CaptionEncoder:
    """An open_clip model by name with a file of its weights, or a folder with open_clip_config.json and both.

    Nothing is downloaded. Raises UsageError, WeightsError.
    """
    open_clip = require("open_clip")
    folder = Path(model).expanduser()
    if folder.is_dir():
        config = _read_config(folder / CONFIG)
        found = [folder / name for name in WEIGHTS if (folder / name).is_file()]
        if weights is None and not found:
            raise WeightsError(f"the folder has no {WEIGHTS[0]}", where=str(folder))
        path = Path(weights) if weights is not None else found[0]
        name = folder.name
    else:
        if weights is None:
            raise UsageError(
                f"the open_clip model {str(model)!r} needs a file of weights",
                fix="name it, or give a folder with open_clip_config.json and weights as the model",
            )
        config, path, name = open_clip.get_model_config(str(model)), Path(weights).expanduser(), str(model)
    if config is None:
        hint = did_you_mean(str(model), open_clip.list_models())
        raise UsageError(f"open_clip has no model {str(model)!r}", fix=hint or None)
    module, tokenize = _build(open_clip, config)
    module.load_state_dict(check_against(spec_of(module), load_state(path), source=path.name))
    return CaptionEncoder(module, tokenize, f"{name}-{file_sha256(path)[:16]}", device)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found: dict[str, Any] = content["model_cfg"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"cannot read {CONFIG}", where=str(path), why=str(error)[:200]) from error
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
    module = kind(**own)
    return module, open_clip.SimpleTokenizer(context_length=int(text.get("context_length", 77)))
