"""Invariants of every model of clips at any size: zero start, initial states, frames of any number."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from families.video_models import EVERY, opened
from hypothesis import given, settings
from hypothesis import strategies as st

from genzoo.nn.mamba import MambaMixer


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(sorted(EVERY)), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.integers(0, 2)
)
def test_a_fresh_model_of_any_size_returns_zero_and_an_opened_one_does_not(
    name: str, frames: int, patches: int, channels: int, num_classes: int
) -> None:
    sizes = {"num_frames": frames, "input_size": 2 * patches, "in_channels": channels}
    model = EVERY[name](**sizes, num_classes=num_classes)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, frames, channels, 2 * patches, 2 * patches, generator=generator)
    inputs = (x, torch.tensor([0, 999]), torch.tensor([num_classes, 0]) if num_classes else None)
    output = model(*inputs)
    assert output.shape == (2, frames, 2 * channels, 2 * patches, 2 * patches)
    assert not output.any()
    assert opened(model)(*inputs).any()


@settings(max_examples=8, deadline=None)
@given(st.sampled_from([name for name in sorted(EVERY) if name != "latte"]), st.integers(1, 5))
def test_both_directions_of_every_mixer_start_as_mamba_does(name: str, d_state: int) -> None:
    mixers = [m for m in EVERY[name](d_state=d_state).modules() if isinstance(m, MambaMixer)]
    assert mixers
    for mixer in mixers:
        for suffix in ("", "_b"):
            step = F.softplus(mixer.get_parameter(f"dt_proj{suffix}.bias"))
            assert ((step > 0.99e-3) & (step < 1.01e-1)).all()
            rows = mixer.get_parameter(f"A{suffix}_log").exp()
            torch.testing.assert_close(rows, torch.arange(1.0, d_state + 1).expand_as(rows))
            assert (mixer.get_parameter(f"D{suffix}") == 1).all()
