"""The whole mixer on a CPU against transformers' MambaMixer with the same weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks.measure import compare, interleave
from benchmarks.registry import Options, case
from benchmarks.scans import require_close
from genzoo.nn.mamba import MambaMixer

WIDTH = 384


def transformers_mixer(mixer: MambaMixer) -> nn.Module:
    """transformers' mixer with our weights; its evaluation path needs no compiled package."""
    from transformers import MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer as Peer

    config = MambaConfig(hidden_size=mixer.d_model, state_size=mixer.d_state, num_hidden_layers=1, expand=2)
    peer = Peer(config, layer_idx=0)
    peer.load_state_dict(mixer.state_dict())
    return peer.eval()


@case("mixer")
def mixer(options: Options) -> list[dict[str, Any]]:
    """Forward of one unidirectional mixer at (4, l, 384), and our bidirectional one beside it."""
    rows = []
    torch.manual_seed(0)
    ours, both = MambaMixer(WIDTH, mixer="none").eval(), MambaMixer(WIDTH).eval()
    peer = transformers_mixer(ours)
    for length in (64, 256, 1024):
        x = torch.randn(4, length, WIDTH)
        with torch.no_grad():
            gap = require_close("mixer", ours(x), peer(x), 1e-5)
            calls = {
                "genzoo": lambda x=x: ours(x),
                "transformers": lambda x=x: peer(x),
                "genzoo v2": lambda x=x: both(x),
            }
            seconds = interleave(calls, options.repeats)
        row = compare("genzoo", {k: v for k, v in seconds.items() if k != "genzoo v2"})
        twice = compare("genzoo", {k: v for k, v in seconds.items() if k != "transformers"})
        row["v2_cost"] = twice["times_slower"]["genzoo v2"]["median"]
        rows.append({"name": f"forward l={length}", **row, "gap": gap, "target": 10})
    return rows
