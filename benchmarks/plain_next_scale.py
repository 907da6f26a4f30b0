"""VAR and CAR as their papers' code computes them: a peer for the same weights, in the same process.

Each block's modulation is computed anew at every scale, keys and values are joined by `cat`, every step is an
operation of torch, and 16 bits are left to autocast. Re-expressed from the papers and their specification.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, normalize, scaled_dot_product_attention, silu

from genzoo.families.car.control.model import CAR
from genzoo.families.car.var.blocks import MAX_SCALE, NORM_EPS, Block
from genzoo.families.car.var.model import VAR, repeat_to, scale_contents


class PlainBlock:
    """One block of a VAR with what it remembers."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.past: tuple[Tensor, Tensor] | None = None

    def __call__(self, x: Tensor, condition: Tensor) -> Tensor:
        """x: (b, l_k, d) of the next scale.   condition: (b, d)."""
        last = self.block.ada_lin[-1]
        made = linear(silu(condition), last.weight, last.bias).view(len(x), 1, 6, -1).unbind(2)
        gate1, gate2, scale1, scale2, shift1, shift2 = made
        x = x + self._attention(_norm(x, scale1, shift1)).mul_(gate1)
        ffn = self.block.ffn
        inner = gelu(ffn.fc1(_norm(x, scale2, shift2)), approximate="tanh")
        return x + ffn.fc2(inner).mul(gate2)

    def _attention(self, x: Tensor) -> Tensor:
        attn = self.block.attn
        bias = torch.cat([attn.q_bias, attn.zero_k_bias, attn.v_bias])
        qkv = linear(x, attn.mat_qkv.weight, bias)
        q, k, v = rearrange(qkv, "b l (three h d) -> three b h l d", three=3, h=attn.num_heads)
        if attn.l2_norm:
            q = normalize(q, dim=-1).mul(attn.scale_mul_1H11.clamp(max=MAX_SCALE).exp())
            k = normalize(k, dim=-1)
        k = k.to(v.dtype)
        if self.past is not None:
            k, v = torch.cat([self.past[0], k], dim=2), torch.cat([self.past[1], v], dim=2)
        self.past = k, v
        mixed = scaled_dot_product_attention(q.to(v.dtype), k, v, scale=attn.scale)
        joined: Tensor = attn.proj(rearrange(mixed, "b h l d -> b l (h d)"))
        return joined


def _norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return layer_norm(x, x.shape[-1:], eps=NORM_EPS).mul(scale.add(1)).add(shift)


def plain_decoder(
    model: VAR | CAR, class_labels: Tensor, control: Sequence[Tensor] | None = None
) -> Callable[[int, Tensor | None], Tensor]:
    """Logits (b, h_k w_k, v) of scale after scale, as `decoder_of` predicts them.

    control: one (b', 3, f h_k, f w_k) per scale, for a CAR with the paper's fusion, network and injection.
    """
    base = model.base if isinstance(model, CAR) else model
    condition = base.condition(class_labels)
    blocks = [PlainBlock(block) for block in base.blocks]  # type: ignore[arg-type]
    branch: list[PlainBlock] = []
    if control is not None:
        assert isinstance(model, CAR)
        branch = [PlainBlock(block) for block in model.car_blocks]  # type: ignore[arg-type]

    def predict(scale: int, read: Tensor | None) -> Tensor:
        contents = repeat_to(scale_contents(base, condition, read), len(condition))
        outputs = []
        if control is not None:
            fused = model.fuse(contents, model.car_control_convs(control[scale]))  # type: ignore[operator, union-attr]
            placed = base.place(fused, scale)
            for block in branch:
                placed = block(placed, condition)
                outputs.append(placed)
        tokens = base.place(contents, scale)
        for index, block in enumerate(blocks):
            if outputs and index >= len(blocks) // 2:
                tokens = _injected(model, tokens, outputs.pop(), index - len(blocks) // 2)
            tokens = block(tokens, condition)
        return base.logits(tokens, condition)

    return predict


def _injected(model: VAR | CAR, tokens: Tensor, output: Tensor, index: int) -> Tensor:
    assert isinstance(model, CAR)
    norm, project = model.car_skip_norm[index], model.car_skip_linear[index]
    injected: Tensor = project(norm(torch.cat([tokens, output], dim=-1)))
    return injected
