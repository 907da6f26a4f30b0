"""Counting any model: exact on small layers, harmless to the model, clear when it cannot."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from genzoo.core.errors import UsageError
from genzoo.families.dim.model import DiM
from genzoo.nn.attention import Attention
from genzoo.nn.count import count_model, mixer_macs
from genzoo.nn.mamba import MambaMixer


class Small(nn.Module):
    """A convolution, a Linear over tokens, attention and a mixer, of sizes that are all different."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 2, stride=2)
        self.label = nn.Embedding(5, 8)
        self.attention = Attention(8, 2)
        self.mixer = MambaMixer(8, d_state=3)
        self.linear = nn.Linear(8, 11)
        self.norm = nn.LayerNorm(11)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        tokens = self.conv(x).flatten(2).transpose(1, 2) + self.label(label)[:, None]
        return self.norm(self.linear(self.mixer(self.attention(tokens))))

    def example_inputs(self) -> tuple[Tensor, Tensor]:
        x = self.conv.weight.new_zeros(1, 3, 4, 6)
        return x, x.new_zeros(1).long()


def test_every_kind_of_work_is_counted_exactly() -> None:
    model = Small()
    count = count_model(model)
    tokens, mixer = 2 * 3, mixer_macs(model.mixer, 2 * 3)
    assert count["macs_attention"] == 2 * tokens * tokens * 8
    assert count["macs_conv"] == tokens * 8 * 3 * 2 * 2 + mixer["conv"]
    assert count["macs_linear"] == tokens * (8 * 24 + 8 * 8 + 8 * 11) + mixer["linear"]
    assert count["macs_scan"] == mixer["scan"] == tokens * 2 * 16 * (4 * 3 + 3)
    assert count["macs"] == sum(count[f"macs_{kind}"] for kind in ("attention", "conv", "linear", "scan"))
    assert count["gflops"] == count["macs"] / 1e9
    assert count["num_params"] == sum(p.numel() for p in model.parameters())
    assert count["params_embedding"] == 40
    assert count["params_mixer"] == sum(p.numel() for p in model.mixer.parameters())


@pytest.mark.parametrize(("mixer", "sets", "directions"), [("none", 1, 1), ("v1", 1, 2), ("v2", 2, 2)])
def test_mixer_work_by_type(mixer: str, sets: int, directions: int) -> None:
    module = MambaMixer(20, d_state=3, expand=2, mixer=mixer)
    rank, inner = 2, 40
    macs = mixer_macs(module, 7)
    assert macs["linear"] == 7 * (20 * 2 * inner + inner * 20 + sets * (inner * (rank + 6) + rank * inner))
    assert macs["conv"] == 7 * sets * inner * 4
    assert macs["scan"] == 7 * directions * inner * (4 * 3 + 3)


def test_counting_leaves_the_model_as_it_was() -> None:
    torch.manual_seed(0)
    model = Small()
    inputs = (torch.randn(2, 3, 4, 6), torch.tensor([1, 4]))
    before = model(*inputs)
    count_model(model)
    assert torch.equal(model(*inputs), before)
    assert all(p.device.type == "cpu" for p in model.parameters())


def test_another_image_size_rebuilds_the_architecture() -> None:
    model = DiM(depth=1, hidden_size=16, patch_size=2, input_size=4, num_classes=3)
    ours, larger = count_model(model, image_size=32), count_model(model, image_size=64)
    assert ours == count_model(model)
    assert larger["macs_scan"] == 4 * ours["macs_scan"]
    assert larger["params_fixed"] == 4 * ours["params_fixed"]
    assert larger["params"] == ours["params"]
    assert count_model(model, image_size=8, latent_factor=1) == larger


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"paper": True}, r"no method paper_count\(\)"),
        ({"image_size": 64}, "Small has no input_size"),
        ({"image_size": 60}, "60 is not a multiple of 8"),
    ],
)
def test_what_cannot_be_counted_is_said(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        count_model(Small(), **options)


def test_a_model_must_say_what_it_takes() -> None:
    with pytest.raises(UsageError, match=r"no method example_inputs\(\)"):
        count_model(nn.Linear(2, 3))
