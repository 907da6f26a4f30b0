"""A concept into a diffusers pipeline that somebody holds, with proof that its output changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.errors import WeightsError
from genzoo.families.custom_diffusion.files.base_weights import fingerprint
from genzoo.families.custom_diffusion.files.concept import ConceptDelta
from genzoo.families.custom_diffusion.files.read_layouts import read_concept
from genzoo.families.custom_diffusion.files.weight_names import is_cross_attention
from genzoo.pretrained.prompts import add_tokens


@dataclass(frozen=True)
class Applied:
    """output_change: largest absolute difference of the UNet's output on a fixed input, before and after."""

    output_change: float
    tokens: tuple[str, ...]
    _unet: nn.Module
    _before: Mapping[str, Tensor]

    def undo(self) -> None:
        """Put the UNet's weights back; the tokens stay in the tokenizer."""
        _write(self._unet, self._before)


def apply_concept(concept: ConceptDelta | str | Path, pipeline: Any, *, any_base: bool = False) -> Applied:
    """Write a concept's weights and tokens into a Stable Diffusion pipeline (1.x, 2.x, XL) of diffusers.

    The weights go into the projections themselves, so every attention backend uses them. any_base: accept a
    concept that was trained from another base. All or nothing: after an error the pipeline is as before.
    Raises WeightsError, UsageError.
    """
    delta = concept if isinstance(concept, ConceptDelta) else read_concept(concept)
    unet = pipeline.unet
    current = {name: value for name, value in unet.named_parameters() if is_cross_attention(name)}
    check_fits(delta, {name: tuple(value.shape) for name, value in current.items()})
    if not any_base:
        check_base(delta, current)
    _check_tokens(delta, pipeline)
    before = {name: current[name].detach().clone() for name in delta.names}
    probe = probe_output(unet)
    _write(unet, {name: delta.full_weight(name, before[name]) for name in delta.names})
    change = float((probe_output(unet) - probe).abs().max())
    if not change > 0:
        _write(unet, before)
        raise WeightsError(
            "loading the concept did not change what the model computes",
            why="its weights equal the model's, or attention processors in the model bypass the projections",
            fix="use an unmodified pipeline of the base model (unet.set_default_attn_processor())",
        )
    for index, (tokenizer, encoder) in enumerate(_encoders(pipeline)):
        add_tokens(tokenizer, encoder, {token: rows[index] for token, rows in delta.tokens.items()})
    return Applied(change, tuple(delta.tokens), unet, before)


def check_fits(delta: ConceptDelta, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Whether the base has every weight of the concept, in its shape. Raises WeightsError."""
    widths = {shape[1] for name, shape in shapes.items() if name.endswith(("to_k.weight", "to_v.weight"))}
    if delta.width not in widths:
        raise WeightsError(
            f"the concept was trained on text features {delta.width} wide; this model's are {sorted(widths)}",
            why="768 is Stable Diffusion 1, 1024 is 2, 2048 is XL",
            fix="use the base model that the concept was trained from",
        )
    absent = [name for name in delta.names if name not in shapes]
    if absent:
        raise WeightsError(
            f"the model has no {absent[0]}",
            why=f"{len(absent)} of the concept's {len(delta.names)} weights",
            fix="use the base model that the concept was trained from",
        )
    for name in delta.names:
        found = _shape(delta, name)
        if found != shapes[name]:
            raise WeightsError(f"{name} is {found} in the concept and {shapes[name]} in the model")


def check_base(delta: ConceptDelta, base: Mapping[str, Tensor], found: str | None = None) -> None:
    """Whether the concept names this base, if it names one. Raises WeightsError."""
    if delta.base_fingerprint and delta.base_fingerprint != (found or fingerprint(base)):
        raise WeightsError(
            "the concept was trained from another base model",
            why=f"its base is {delta.base_model or 'unnamed'}, fingerprint {delta.base_fingerprint[:12]}",
            fix="use that base; any_base=True applies it nevertheless",
        )


@torch.no_grad()
def probe_output(unet: nn.Module) -> Tensor:
    """What a UNet makes of one small fixed input; (1, c, h, w) float32 on the CPU."""
    config: Any = unet.config
    like = next(unet.parameters())
    side = 2 ** len(config["block_out_channels"])
    width = config["cross_attention_dim"]
    width = width if isinstance(width, int) else width[0]
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(like)

    latents, text = draw(1, config["in_channels"], side, side), draw(1, 4, width)
    added = None
    if config.get("addition_embed_type") == "text_time":
        num_ids = 6
        pooled = config["projection_class_embeddings_input_dim"] - num_ids * config["addition_time_embed_dim"]
        added = {"text_embeds": draw(1, pooled), "time_ids": draw(1, num_ids)}
    was_training = unet.training
    unet.eval()
    out = unet(latents, 500, encoder_hidden_states=text, added_cond_kwargs=added).sample
    unet.train(was_training)
    return out.float().cpu()


def _check_tokens(delta: ConceptDelta, pipeline: Any) -> None:
    """Everything that adding tokens could complain about, before anything is written."""
    encoders = _encoders(pipeline)
    for token, rows in delta.tokens.items():
        if len(rows) != len(encoders):
            raise WeightsError(
                f"{token} has embeddings for {len(rows)} text encoders; the pipeline has {len(encoders)}"
            )
        for row, (tokenizer, encoder) in zip(rows, encoders, strict=True):
            width = encoder.get_input_embeddings().weight.shape[1]
            if tuple(row.shape) != (width,):
                raise WeightsError(
                    f"the embedding of {token} is {tuple(row.shape)}, the encoder {width} wide"
                )
            if len(tokenizer(token, add_special_tokens=False).input_ids) == 1:
                raise WeightsError(
                    f"the pipeline knows the word {token!r} already",
                    fix="load the concept into a fresh pipeline, or rename its token (ConceptDelta.renamed)",
                )


def _encoders(pipeline: Any) -> list[tuple[Any, Any]]:
    pairs = [
        (getattr(pipeline, f"tokenizer{suffix}", None), getattr(pipeline, f"text_encoder{suffix}", None))
        for suffix in ("", "_2")
    ]
    return [pair for pair in pairs if pair[1] is not None]


@torch.no_grad()
def _write(unet: nn.Module, weights: Mapping[str, Tensor]) -> None:
    parameters = dict(unet.named_parameters())
    for name, value in weights.items():
        parameters[name].copy_(value.to(parameters[name]))


def _shape(delta: ConceptDelta, name: str) -> tuple[int, ...]:
    if name in delta.weights:
        return tuple(delta.weights[name].shape)
    u, v = delta.factors[name]
    return (u.shape[0], v.shape[1])
