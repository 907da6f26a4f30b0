"""DiT and its embeddings against the official implementation, one test per case of the manifest."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from golden.manifest import golden_cases, golden_tensors
from torch import Tensor

from genzoo.diffusion.guidance import combine
from genzoo.families.dim.dit import DiT
from genzoo.nn.embeddings import sincos_1d, sincos_2d, timestep_features

SET = "ssm_diffusion"
# relative to the largest value: float64 differs by the order of sums only, float32 by its rounding
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}
TABLE = re.compile(r"(?:(?P<kind>temp|spatial)_)?d(?P<dim>\d+)_[fg](?P<size>\d+)")
GUIDED_CHANNELS = 3
FEATURES = re.compile(r"temb_(?P<odd>odd_)?(?P<dim>\d+)")


def is_table_case(case: dict[str, Any]) -> bool:
    return all(TABLE.fullmatch(key) for key in case["keys"])


MODEL_CASES = [case for case in golden_cases(SET, "dit") if not is_table_case(case)]
TABLE_CASES = [
    (file, case) for file in ("dit", "latte") for case in golden_cases(SET, file) if is_table_case(case)
]


def assert_near(actual: Tensor, expected: Tensor, what: str) -> None:
    assert actual.shape == expected.shape, what
    gap = (actual.to(expected.dtype) - expected).abs().max().item()
    limit = TOLERANCE[expected.dtype] * max(expected.abs().max().item(), 1e-30)
    assert gap <= limit, f"{what}: off by {gap:.3g}, allowed {limit:.3g}"


def build(config: dict[str, Any]) -> DiT:
    options = dict(config)
    null_class = options.pop("class_dropout_prob", 0.1) > 0
    return DiT(**options, null_class=null_class)


def load(case: dict[str, Any], tensors: dict[str, Tensor], dtype: torch.dtype) -> DiT:
    model = build(case["config"])
    weights = {key.removeprefix("sd."): value for key, value in tensors.items() if key.startswith("sd.")}
    model.load_state_dict(weights, strict=True)
    return model.to(dtype).eval()


class RecordedFeatures(torch.nn.Module):
    """A timestep embedding that looks its features up in the recording.

    The frequencies are float32 exponentials, which differ in the last bit from one processor to the next; at
    t = 999 that is 3e-5 of a feature, far above what float64 outputs are compared to. The features have their
    own check.
    """

    def __init__(self, mlp: torch.nn.Module, features: Tensor) -> None:
        super().__init__()
        self.mlp, self.features = mlp, features

    def forward(self, timesteps: Tensor) -> Tensor:
        return self.mlp(self.features.to(next(self.mlp.parameters()).dtype))


def guided(model: DiT, case: dict[str, Any], x: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
    """DiT's guided output: both halves see the first half's latents and get its guided noise."""
    half = x[: len(x) // 2]
    conditional, unconditional = model(torch.cat([half, half]), timesteps, labels).chunk(2)
    scale, channels = case["cfg_scale"], x.shape[1]
    first = combine(conditional, unconditional, scale, num_channels=channels, cfg_channels=GUIDED_CHANNELS)
    second = torch.cat([first[:, :GUIDED_CHANNELS], unconditional[:, GUIDED_CHANNELS:]], dim=1)
    return torch.cat([first, second])


def compute(key: str, case: dict[str, Any], tensors: dict[str, Tensor]) -> Tensor:
    """What our code says for one recorded output."""
    if match := FEATURES.fullmatch(key):
        # the odd widths were recorded half a step later, to have fractional timesteps too
        return timestep_features(tensors["t"] + (0.5 if match["odd"] else 0), int(match["dim"]))
    quantity, _, precision = key.rpartition("_")
    dtype = {"f32": torch.float32, "f64": torch.float64}[precision]
    model = load(case, tensors, dtype)
    features = tensors.get(f"temb_{model.t_embedder.num_features}")
    if dtype == torch.float64 and features is not None:
        model.t_embedder = RecordedFeatures(model.t_embedder.mlp, features)
    x = tensors["x"].to(dtype).requires_grad_()
    if quantity == "cfg_out":
        return guided(model, case, x, tensors["t"], tensors["y"]).detach()
    output = model(x, tensors["t"], tensors["y"])
    if quantity == "out":
        return output.detach()
    assert quantity == "grad_x", f"no computation for {key}"
    return torch.autograd.grad(output, x, tensors["grad_out"].to(dtype))[0]


@pytest.mark.parametrize("case", MODEL_CASES, ids=lambda case: case["name"])
def test_dit_equals_the_official_model(case: dict[str, Any]) -> None:
    tensors = golden_tensors(SET, "dit", case["name"])
    inputs = {"x", "t", "y", "grad_out"}
    recorded = [key for key in case["keys"] if not key.startswith("sd.") and key not in inputs]
    assert recorded
    for key in recorded:
        assert_near(compute(key, case, tensors), tensors[key], f"{case['name']}/{key}")


@pytest.mark.parametrize("case", MODEL_CASES, ids=lambda case: case["name"])
def test_a_fresh_dit_has_the_official_keys_and_zeros(case: dict[str, Any]) -> None:
    weights = build(case["config"]).state_dict()
    tensors = golden_tensors(SET, "dit", case["name"])
    official = {key.removeprefix("sd.") for key in case["keys"] if key.startswith("sd.")}
    assert set(weights) == official
    assert {key for key, value in weights.items() if not value.any()} == set(case["zero_initialised"])
    assert_near(weights["pos_embed"], tensors["sd.pos_embed"], "pos_embed")


@pytest.mark.parametrize(
    ("file", "case"), TABLE_CASES, ids=lambda value: value if isinstance(value, str) else value["name"]
)
def test_position_tables_equal_the_official_ones(file: str, case: dict[str, Any]) -> None:
    tensors = golden_tensors(SET, file, case["name"])
    for key in case["keys"]:
        match = TABLE.fullmatch(key)
        dim, size = int(match["dim"]), int(match["size"])
        table = sincos_1d(dim, torch.arange(size)) if match["kind"] == "temp" else sincos_2d(dim, size)
        assert_near(table, tensors[key], f"{case['name']}/{key}")
