"""What a step may move: new token rows only, and keys and values of every position but the first."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from genzoo.core.errors import UsageError
from genzoo.families.custom_diffusion.files.weight_names import is_cross_attention, is_key_value

FREEZE_MODES: dict[str, Callable[[str], bool]] = {
    "crossattn_kv": is_key_value,
    "crossattn": is_cross_attention,
    "all": lambda name: True,
}
"""What moves: whether a weight of this name does."""


class ExtendedEmbedding(nn.Module):
    """A frozen token table with a few trainable rows below it: nothing else can get a gradient or decay.

    table: (v, d), frozen.   rows: (n, d), the parameter; token ids v .. v + n - 1.   embed_scale: (), what
    all are multiplied by when they are read, as Gemma's are.
    """

    # pulling a word towards zero teaches nothing; the official decay of these rows is a side effect
    undecayed = ("rows",)

    embed_scale: Tensor | None

    def __init__(self, table: Tensor, rows: Tensor, embed_scale: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("embed_scale", embed_scale, persistent=False)
        self.table = nn.Parameter(table.detach(), requires_grad=False)
        self.rows = nn.Parameter(rows.detach().clone().float())

    @property
    def weight(self) -> Tensor:
        """The whole table (v + n, d), in the frozen table's dtype."""
        return torch.cat([self.table, self.rows.to(self.table.dtype)])

    @property
    def new_ids(self) -> list[int]:
        """Token ids of the trainable rows."""
        return list(range(len(self.table), len(self.table) + len(self.rows)))

    def forward(self, input_ids: Tensor) -> Tensor:
        """(b, l) -> (b, l, d)"""
        found = F.embedding(input_ids.clamp_max(len(self.table) - 1), self.table)
        if len(self.rows):
            new = F.embedding((input_ids - len(self.table)).clamp_min(0), self.rows).to(found.dtype)
            found = torch.where((input_ids >= len(self.table))[..., None], new, found)
        return found if self.embed_scale is None else found * self.embed_scale.to(found.dtype)


def stop_first_token(x: Tensor) -> Tensor:
    """The same values (b, l, d) without gradient at the first position, which every prompt shares."""
    return torch.cat([x[:, :1].detach(), x[:, 1:]], dim=1)


def stop_first_token_in(unet: nn.Module) -> list[RemovableHandle]:
    """Make every cross-attention key and value projection of a UNet stop the first token's gradient."""
    return [
        module.register_forward_hook(lambda _module, _args, output: stop_first_token(output))
        for name, module in unet.named_modules()
        if is_key_value(f"{name}.weight")
    ]


def round_frozen(module: nn.Module, dtype: torch.dtype) -> None:
    """Keep frozen parameters in a type; buffers, such as statistics of latents, stay as they are."""
    for parameter in module.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def choose_trainable(unet: nn.Module, freeze_mode: str = "crossattn_kv") -> dict[str, nn.Parameter]:
    """Freeze a UNet but for its cross-attention keys and values, all of cross-attention ("crossattn"), or
    nothing ("all", the baseline that the paper compares with).
    """
    if freeze_mode not in FREEZE_MODES:
        raise UsageError(f"freeze_mode={freeze_mode!r} is not known", fix=", ".join(FREEZE_MODES))
    wanted = FREEZE_MODES[freeze_mode]
    chosen = {}
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(wanted(name))
        if wanted(name):
            chosen[name] = parameter
    return chosen
