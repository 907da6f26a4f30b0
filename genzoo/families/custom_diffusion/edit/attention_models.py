"""Which models of diffusers read text so that keys and values have a closed form, and what their rows are.

K = to_k(f(text)). Where f depends on the text alone, its rows are computed once and the algebra of `solve` is
exact; a norm of K acts behind the projection and does not matter. Where text tokens are mixed with the
picture's in every block, only the first projection of the text is left. A model is told by its class's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.errors import UsageError

Rows = dict[str, Tensor]
"""(l, d) for each projection by its name."""


@dataclass(frozen=True)
class Text:
    """features: (l, d) of the text encoder; HunyuanDiT's two one after the other.   masks: (l,) each, 0 where
    HunyuanDiT puts its learnt padding.
    """

    features: tuple[Tensor, ...]
    masks: tuple[Tensor, ...] = ()


Reader = Callable[[Any, Text], Tensor]


def _projected(model: Any, text: Text) -> Tensor:
    return _alone(model.caption_projection, text)


def _projected_and_normed(model: Any, text: Text) -> Tensor:
    found: Tensor = model.caption_norm(_alone(model.caption_projection, text))
    return found


def _embedded(model: Any, text: Text) -> Tensor:
    return _alone(model.condition_embedder.text_embedder, text)


def _of_two(model: Any, text: Text) -> Tensor:
    """BERT's rows, then T5's; padding is learnt, and pictures look at it."""
    if len(text.features) != 2:
        raise UsageError("HunyuanDiT reads two texts", fix="features of BERT and of T5")
    first, second = text.features
    rows = torch.cat([first, _alone(model.text_embedder, Text((second,)))])
    if not text.masks:
        return rows
    seen = torch.cat(text.masks).bool()[:, None].to(rows.device)
    return torch.where(seen, rows, model.text_embedding_padding.to(rows))


def _of_unet(model: Any, text: Text) -> Tensor:
    """As they come, or behind the linear layer of Kolors and IF."""
    project = model.encoder_hid_proj
    return text.features[0] if project is None else _alone(project, text)


EXACT: dict[str, Reader] = {
    "AllegroTransformer3DModel": _projected,
    "HunyuanDiT2DModel": _of_two,
    "LTXVideoTransformer3DModel": _projected,
    "LatteTransformer3DModel": _projected,
    "LuminaNextDiT2DModel": lambda model, text: text.features[0],
    "PixArtTransformer2DModel": _projected,
    "SanaTransformer2DModel": _projected_and_normed,
    "UNet2DConditionModel": _of_unet,
    "WanTransformer3DModel": _embedded,
}
# the projection that is linear in the text, where keys and values are not
PROJECTION = {
    "AuraFlowTransformer2DModel": "context_embedder",
    "CogView3PlusTransformer2DModel": "patch_embed.text_proj",
    "FluxTransformer2DModel": "context_embedder",
    "HiDreamImageTransformer2DModel": "caption_projection.0.linear",
    "Lumina2Transformer2DModel": "time_caption_embed.caption_embedder.1",
    "QwenImageTransformer2DModel": "txt_in",
    "SD3Transformer2DModel": "context_embedder",
    "StableCascadeUNet": "kv_mapper.1",
}
# diffusers' pipelines of these cannot load LoRA: whole matrices, or PEFT
WITHOUT_LORA = (
    "AllegroTransformer3DModel",
    "HunyuanDiT2DModel",
    "LatteTransformer3DModel",
    "LuminaNextDiT2DModel",
    "PixArtTransformer2DModel",
)
_KEY_VALUE = re.compile(r"(?:^|\.)(?<!temporal_)(?:transformer_)?(?:blocks|layers)\.\d+\.attn2\.to_[kv]$")
_UNET = re.compile(r"\.attn2\.to_[kv]$")
# IF: its to_k and to_v take the picture
_ADDED = re.compile(r"\.add_[kv]_proj$")


@torch.no_grad()
def text_rows(model: nn.Module, text: Text, *, target: str = "keys_values") -> Rows:
    """What enters each projection for a text.   target: or "text_projection", where keys and values have no
    closed form. Raises UsageError, with the reason, for a model where the target is not exact.
    """
    kind = type(model).__name__
    if target == "text_projection":
        return _projection_rows(model, kind, text)
    found = reader_of(kind)(model, text)
    names = projections(model)
    return {name: _own_norm(model, kind, name, found) for name in names}


def projections(model: nn.Module) -> list[str]:
    """Names of the linear layers that make keys and values of the text."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if type(model).__name__ == "UNet2DConditionModel":
        added = [name for name in names if _ADDED.search(name)]
        return added or [name for name in names if _UNET.search(name)]
    return [name for name in names if _KEY_VALUE.search(name) and not name.startswith("temporal_")]


def _own_norm(model: Any, kind: str, name: str, rows: Tensor) -> Tensor:
    """Rows behind the norm that a layer puts before its own projection."""
    normed = rows
    if kind == "LuminaNextDiT2DModel":
        layer = model.get_submodule(name.partition(".attn2")[0])
        normed = layer.norm1_context(rows[None])[0]
    elif name.endswith(("add_k_proj", "add_v_proj")):
        attention = model.get_submodule(name.rpartition(".")[0])
        normed = attention.norm_encoder_hidden_states(rows[None])[0]
    return normed


def _projection_rows(model: nn.Module, kind: str, text: Text) -> Rows:
    if kind not in PROJECTION:
        raise UsageError(
            f"{kind} has no text projection to edit",
            why=f"known: {', '.join(PROJECTION)}",
            fix="keys and values, where they are exact",
        )
    name, rows = PROJECTION[kind], text.features[0]
    if kind == "Lumina2Transformer2DModel":
        rows = model.get_submodule("time_caption_embed.caption_embedder.0")(rows)
    return {name: rows}


def _refusal(kind: str) -> Mapping[str, str]:
    if kind in PROJECTION:
        why = "keys and values have no closed form there"
        return {
            "what": f"text tokens change with the picture in {kind}: {why}",
            "fix": f'edit_model(..., target="text_projection") edits {PROJECTION[kind]}, linear in the text',
        }
    return {
        "what": f"nothing is known about how {kind} reads text",
        "fix": f"one of {', '.join([*EXACT, *PROJECTION])}",
    }


def _alone(module: Any, text: Text) -> Tensor:
    rows: Tensor = module(text.features[0][None])[0]
    return rows


# parts of a model's names that make rows of a text before keys and values read them
_BEFORE = ("caption_projection", "caption_norm", "text_embedder", "text_embedding_padding", "norm1_context")


def reads_before(name: str) -> bool:
    """Whether a weight of this name stands between the text encoder and the projections."""
    return any(part in name for part in _BEFORE)


def reader_of(kind: str) -> Reader:
    """How a class of models makes rows of a text. Raises UsageError, with the reason, where keys and values
    have no closed form.
    """
    if kind not in EXACT:
        raise UsageError(**_refusal(kind))
    return EXACT[kind]


@torch.no_grad()
def padding_rows(model: Any) -> Tensor | None:
    """(n, d) rows that pictures look at wherever a text is short: HunyuanDiT's learnt ones, Wan's constant;
    None where padding is masked.
    """
    kind = type(model).__name__
    if kind == "HunyuanDiT2DModel":
        learnt: Tensor = model.text_embedding_padding
        return learnt
    if kind == "WanTransformer3DModel":
        embedder = model.condition_embedder.text_embedder
        zeros = embedder.linear_1.weight.new_zeros(1, embedder.linear_1.weight.shape[1])
        return _alone(embedder, Text((zeros,)))
    return None


def layer_norm_of(model: Any, name: str) -> Callable[[Tensor], Tensor]:
    """What a layer puts before its own projection, row by row: the identity but for Lumina-Next."""
    kind = type(model).__name__
    return lambda rows: _own_norm(model, kind, name, rows)


def stacked(rows: Sequence[Rows]) -> Rows:
    """The rows of several texts one below the other."""
    return {name: torch.cat([one[name] for one in rows]) for name in rows[0]}
