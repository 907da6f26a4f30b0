"""What a base's linear modules see under a concept's prompts: their inputs, recorded while it samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.seeds import SampleStreams, mix_seed
from genzoo.diffusion.prompted import sample_prompts, schedule_from
from genzoo.families.custom_diffusion.lora.changes import Change
from genzoo.families.custom_diffusion.lora.names import canonical
from genzoo.families.custom_diffusion.lora.pipeline import PipelineParts
from genzoo.pretrained.text_to_image import TextToImageParts

Parts = TextToImageParts | PipelineParts

# beyond the layer's width, more rows leave nothing to choose: the answer is the average's
MAX_ROWS = 256
STEPS, GUIDANCE = 4, 1.0


def linear_modules(parts: Parts) -> dict[str, nn.Module]:
    """The UNet's or transformer's and the text encoders' modules by the names of `LoraFile`."""
    found = dict(parts.unet.named_modules())
    for number, encoder in enumerate(parts.text_encoders):
        part = "text_encoder" if number == 0 else "text_encoder_2"
        found |= {canonical(part, name): module for name, module in encoder.named_modules()}
    return found


def input_group(module: str) -> str:
    """A name that modules share which see the same rows: text for all keys and values of cross-attention, and
    for queries, keys and values of one self-attention.
    """
    attention, _, last = module.rpartition(".")
    if attention.endswith("attn2") and last in ("to_k", "to_v"):
        # a transformer's layers may have norms of their own before them
        return "text" if name_of_unet(module) else f"{attention}.to_kv"
    if last in ("to_q", "to_k", "to_v") and attention.endswith("attn1"):
        return f"{attention}.to_qkv"
    if last in ("q_proj", "k_proj", "v_proj"):
        return f"{attention}.qkv_proj"
    return module


def name_of_unet(module: str) -> bool:
    """Whether a module is one of a UNet of diffusers, whose text is the same in all layers."""
    return module.startswith(("down_blocks.", "mid_block.", "up_blocks."))


@torch.no_grad()
def record_inputs(
    parts: Parts, groups: Mapping[str, str], prompts: Sequence[str], *, seed: int = 0
) -> dict[str, Tensor]:
    """Rows (n, d), at most MAX_ROWS of each group, drawn with a fixed seed, while the prompts are sampled.

    groups: from a group's name to one module that stands for it.
    """
    modules, kept = linear_modules(parts), {name: _Reservoir(mix_seed(seed, name)) for name in groups}
    handles = [
        modules[module].register_forward_pre_hook(_taking(kept[name])) for name, module in groups.items()
    ]
    try:
        _sample(parts, prompts, seed)
    finally:
        for handle in handles:
            handle.remove()
    return {name: one.rows for name, one in kept.items() if one.seen}


def _sample(parts: Parts, prompts: Sequence[str], seed: int) -> None:
    if isinstance(parts, PipelineParts):
        parts.sample(prompts, seed)
        return
    sample_prompts(
        parts,
        schedule_from(parts.scheduler),
        list(prompts),
        SampleStreams.from_seeds(seed, "record", positions=range(len(prompts))),
        sampler={"name": "ddim", "steps": STEPS, "guidance_scale": GUIDANCE},
    )


@contextmanager
@torch.no_grad()
def changed(parts: Parts, changes: Mapping[str, Change], strength: float) -> Iterator[None]:
    """A base with a LoRA in its weights; they are put back."""
    modules: dict[str, Any] = linear_modules(parts)
    before = {name: modules[name].weight.detach().clone() for name in changes}
    try:
        for name, change in changes.items():
            weight = modules[name].weight
            weight.add_((strength * change.delta).reshape(weight.shape).to(weight))
        yield
    finally:
        for name, value in before.items():
            modules[name].weight.copy_(value)


class _Reservoir:
    """A uniform choice of rows out of a stream of unknown length."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed % 2**63)
        self.seen = 0
        self.rows, self.keys = torch.zeros(0, 0), torch.zeros(0)

    def take(self, rows: Tensor) -> None:
        """Every row has a random key; those with the smallest stay."""
        keys = torch.rand(len(rows), generator=self.generator)
        rows = rows.float().cpu()
        self.rows = torch.cat([self.rows, rows]) if self.seen else rows
        self.keys = torch.cat([self.keys, keys]) if self.seen else keys
        self.seen += len(rows)
        if len(self.rows) > MAX_ROWS:
            order = self.keys.argsort()[:MAX_ROWS]
            self.rows, self.keys = self.rows[order], self.keys[order]


def _taking(kept: _Reservoir) -> Any:
    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        rows = inputs[0]
        # a 1 x 1 convolution has its channels second
        kept.take(
            rows.movedim(1, -1).flatten(0, -2) if isinstance(module, nn.Conv2d) else rows.flatten(0, -2)
        )

    return hook
