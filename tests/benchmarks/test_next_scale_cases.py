"""The benchmarks of VAR and CAR on tiny models: every part is timed, and rows say what was compared."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from families.car.tiny import CHANNELS, SIZES, pictures, tiny_car, tiny_codec, tiny_task, tiny_var

from benchmarks.cases import (
    collaborative,
    control_step,
    control_strength,
    gpu_count,
    next_scale,
    next_scale_training,
)
from benchmarks.plain_next_scale import plain_decoder
from benchmarks.registry import Options
from genzoo.families.car.control.decoder import decoder_of
from genzoo.families.car.control.model import CAR
from genzoo.families.car.var.model import VAR


@pytest.mark.parametrize("name", ["VAR fp32", "CAR fp32 first", "CAR bf16 first"])
def test_rows_compare_with_the_published_form(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(next_scale, "LABEL", 3)
    task = tiny_task(tmp_path, tiny_car().eval(), sampler={"guidance_scale": 2.0, "top_k": 5})
    options = Options(repeats=2, settings={"clock": "cpu"})
    controlled = name.startswith("CAR")
    row = next_scale.rounds(task, name, name.split()[1], lambda: pictures(1) if controlled else None, options)
    assert list(row["ms"]) == ["genzoo", next_scale.PEER]
    assert min(row["blocks_ms"], row["decode_ms"], row["sampling_ms"]) > 0
    assert (row["control_ms"] > 0) == controlled
    assert row["tokens_shared"] == 1 or "bf16" in name


@pytest.mark.parametrize("l2_norm", [True, False])
@torch.no_grad()
def test_the_published_form_predicts_what_the_model_does(l2_norm: bool) -> None:
    model = tiny_car(attn_l2_norm=l2_norm).eval().double()
    generator = torch.Generator().manual_seed(0)
    control = [torch.rand(1, *shape, generator=generator).double() for shape in model.control_shapes()]
    labels = torch.tensor([1, 3])
    for one in (model, model.base):
        given = control if one is model else None
        ours = decoder_of(one, labels, model.encode_control(control) if given else None)
        plain = plain_decoder(one, labels, given)
        read = None
        for scale, size in enumerate(model.base.sizes):
            if scale:
                read = torch.randn(2, model.base.word_embed.in_features, *size, generator=generator).double()
            torch.testing.assert_close(plain(scale, read), ours(scale, read), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["var", "car"])
def test_a_training_step_is_measured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"codebook_size": 4096, "num_classes": 1000}
    model = tiny_var(**options) if name == "var" else tiny_car(**options)
    monkeypatch.setattr(next_scale_training, "create_model", lambda name: model)
    found = next_scale_training.measure(name, repeats=1, precision="fp32")
    assert found["seconds"] > 0
    assert found["peak_mb"] > 100
    assert found["trained"] == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_a_control_step_stands_beside_full_fine_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {**SIZES, "codebook_size": 4096, "num_classes": 1000}
    made = {"var_d16": lambda: VAR(**sizes)}
    for case in (next_scale_training, gpu_count):
        monkeypatch.setattr(
            case,
            "create_model",
            lambda name, **options: (
                made[name]() if name in made else CAR(**sizes, control_channels=CHANNELS, **options)
            ),
        )
    steps, memory = control_step.control_step(Options(repeats=1, settings={"batch": "3", "clock": "cpu"}))
    assert steps["name"] == "train step bf16, 3 pictures"
    assert set(steps["times_slower"]) == {"CAR-d16", "CAR-d16, map by map"}
    whole, branch, halved = memory["state_mib"].values()
    assert (halved < branch, memory["state_share"]) == (True, halved / whole)
    assert memory["picture_share"] < 1


def test_two_models_share_the_scales_of_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def create(name: str) -> torch.nn.Module:
        asked.append(name)
        return tiny_var(depth=4 if name == "large" else 2)

    monkeypatch.setattr(collaborative, "LABEL", 3)
    monkeypatch.setattr(collaborative, "SAMPLER", {"guidance_scale": 2.0, "top_k": 5})
    monkeypatch.setattr(collaborative, "create_model", create)
    monkeypatch.setattr(collaborative, "random_codec", lambda: tiny_codec(tmp_path))
    settings = {"large": "large", "small": "small", "drafts": "2,1"}
    rows = collaborative.collaborative_decoding(Options(repeats=1, settings=settings))
    assert asked == ["large", "small"]
    assert [row["name"] for row in rows] == ["2 of 3 scales", "1 of 3 scales"]
    assert all(set(row["ms"]) == {"together", "large alone"} for row in rows)


def test_half_a_control_costs_the_second_half_of_the_base_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_strength, "LABEL", 3)
    monkeypatch.setattr(control_strength, "SAMPLER", {"guidance_scale": 2.0, "top_k": 5})
    monkeypatch.setattr(control_strength, "create_model", lambda name: tiny_car())
    monkeypatch.setattr(control_strength, "random_codec", lambda: tiny_codec(tmp_path))
    (row,) = control_strength.control_strength(Options(repeats=1, settings={"precision": "fp32"}))
    counts = row["multiply_adds"]
    assert set(row["ms"]) == set(counts) == {"strength 0.5", "strength 0", "strength 1"}
    assert counts["strength 0"] < 1 == counts["strength 1"] < counts["strength 0.5"] < row["target"]
